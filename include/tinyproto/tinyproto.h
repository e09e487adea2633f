/*
 * All of libtinyproto: messages of up to 4,043,309,055 bytes over TCP or Unix sockets, compatible on
 * the wire with the Python package tinyproto 2.0.1 and 3.0.
 */
#ifndef TINYPROTO_TINYPROTO_H
#define TINYPROTO_TINYPROTO_H

#include <tinyproto/address.h>
#include <tinyproto/client.h>
#include <tinyproto/conn.h>
#include <tinyproto/error.h>
#include <tinyproto/frame.h>
#include <tinyproto/server.h>
#include <tinyproto/sync.h>

#endif
