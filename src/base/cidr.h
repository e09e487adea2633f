/*
 * Ranges of addresses, as `10.0.0.0/8` and `fd00::/8`: read, compared. Pure.
 */
#ifndef CIDR_H
#define CIDR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

/* An IPv4 or IPv6 address, in network order. */
struct ip_address {
    bool v6;
    uint8_t bytes[16]; /* of IPv4 the first four */
};

/*
 * The address that is judged. One that carries an IPv4 address is that address: IPv4-mapped
 * (::ffff:0:0/96), NAT64 (64:ff9b::/96; RFC 6052, 2.1) and IPv4-compatible (::/96 without :: and ::1;
 * RFC 4291, 2.5.5.1). False: neither IPv4 nor IPv6.
 */
bool ip_address_of(const struct sockaddr *address, struct ip_address *out);

struct cidr {
    struct ip_address network; /* the bits behind the prefix are zero */
    unsigned bits;
};

/* Reads ADDRESS/BITS. False: `*why` is a literal that says what is wrong. */
bool cidr_parse(const char *text, size_t len, struct cidr *out, const char **why);

bool cidr_holds(const struct cidr *range, const struct ip_address *address);

#endif
