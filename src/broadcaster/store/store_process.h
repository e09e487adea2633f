/*
 * Processes, as a database that outlives them names them: to tell later whether one has ended.
 */
#ifndef STORE_PROCESS_H
#define STORE_PROCESS_H

#include <stdbool.h>

#define STORE_PROCESS_SIZE 128

/* The name of this process, which no other process ever has. */
void store_process_self(char out[STORE_PROCESS_SIZE]);
/* Is the process of that name alive? Of one on another machine, or before the last boot: false. */
bool store_process_is_alive(const char *process);
/* Was it one of this machine since it was booted? */
bool store_process_is_local(const char *process);

#endif
