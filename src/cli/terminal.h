/* SPDX-License-Identifier: Apache-2.0
 * Runs in: the command line.
 *
 * /dev/tty of a script. Its standard streams are the caller's own descriptors, but the caller's
 * terminal has to be opened anew, by name, in another session. Two ways:
 *
 * 1. The script runs as the user who owns the terminal: then it is the terminal itself.
 * 2. Else (root's scripts have another id; after su; a job in the background) the client makes a
 *    pseudo terminal and copies between it and the real one, but only while the script holds it
 *    open: until then it costs a few system calls and nothing else. While it is held, the pseudo
 *    terminal edits lines and echoes (so a script may turn that off), and the real one passes every
 *    byte on. The real one goes on making signals of Ctrl-C and the like, as long as the script's
 *    terminal would: they reach all that the shell started together. From the background nothing is
 *    read and no mode is changed.
 *
 * One loop, the caller's: terminal_poll() says what to wait for, terminal_react() acts on it.
 */
#pragma once

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/signalfd.h>

struct terminal;

/* NULL: the caller has no controlling terminal, or this host gives no pseudo terminals. */
struct terminal *terminal_open(bool root);
/* What the daemon is to be sent: as root a detached mount that belongs to host_id, else a
 * descriptor that only names it. -1: it cannot be. */
int terminal_share(const struct terminal *t, bool root, unsigned int host_id);
const char *terminal_path(const struct terminal *t);
/* A descriptor for the daemon to hold, so that its close, which is slow, is not ours. -1: none. */
int terminal_opens(const struct terminal *t);

/* All of these take NULL, for none. */
#define TERMINAL_POLLS 3
/* Fills TERMINAL_POLLS entries; returns the time to wait at most, in ms, or -1. */
int terminal_poll(const struct terminal *t, struct pollfd *fds);
void terminal_react(struct terminal *t, const struct pollfd *fds);
/* A signal came: keys that make signals are echoed here, and a new size is passed on. True: the
 * script has been told by its own terminal. */
bool terminal_signal(struct terminal *t, const struct signalfd_siginfo *info);
/* Before the client stops: the shell gets its terminal back. terminal_react() takes it again. */
void terminal_pause(struct terminal *t);
/* What the script wrote is shown, and the mode is what it was: if the script's terminal was not the
 * real one, or it died and could not put it back itself. */
void terminal_close(struct terminal *t, bool died);
