/* SPDX-License-Identifier: Apache-2.0
 * Runs in: every process.
 *
 * Every message and field of every link, and who may send what in which phase. python/bootstrap
 * reads the numbers from _pipsqueak, which exports them from here.
 *
 * link             carrier  from -> to                   messages
 * cell maker       packet   daemon -> maker              MAKE_CELL SPAWN ADD_PREFIX MOUNT
 *                           maker's children -> daemon   MADE MAKE_FAILED
 * net helper       packet   daemon -> net helper         ATTACH
 *                           its children -> daemon       MADE MAKE_FAILED
 * keeper           packet   daemon -> keeper             CG_MAKE CG_LIMIT CG_ATTACH CG_READ
 *                                                        CG_REMOVE CG_TIME
 *                           keeper -> daemon             CG_DONE
 * zygote control   packet   daemon -> zygote             FORK
 *                           zygote -> daemon             FORKED FAILED; a root once: ASLEEP
 * child's stream   frame    daemon -> child              GO CALL GIVE; ADOPT, with descriptors
 *                           child -> daemon              READY REPLY AGAIN PROFILE ASLEEP NEED
 *                                                        RESULT DONE FAILED
 * run socket       packet   client -> daemon             RUN SIGNAL
 *                           daemon -> client             HELLO PROGRESS STARTED STOPPED EXIT
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define WIRE_MESSAGES(X)                                                                      \
	/* daemon -> cell maker */                                                            \
	X(SPAWN, 1)	 /* a program inside a cell made before: root zygotes and jobs */     \
	X(MAKE_CELL, 2)	 /* namespaces for a child to be born into */                         \
	X(ADD_PREFIX, 4) /* show this interpreter prefix in cells made from now on */         \
	X(ATTACH, 5)	 /* to the net helper: a network for this namespace */                \
	X(MOUNT, 6)	 /* these trees into a cell whose process is there already */         \
	X(MADE, 8)                                                                            \
	X(MAKE_FAILED, 9)                                                                     \
	/* daemon -> keeper */                                                                \
	X(CG_MAKE, 16)                                                                        \
	X(CG_LIMIT, 17)                                                                       \
	X(CG_ATTACH, 18)                                                                      \
	X(CG_REMOVE, 19)                                                                      \
	X(CG_READ, 20)                                                                        \
	X(CG_DONE, 21)                                                                        \
	X(CG_TIME, 22)                                                                        \
	/* daemon <-> zygote */                                                               \
	X(FORK, 32)   /* fork a child into the cell whose descriptors come along */           \
	X(FORKED, 33) /* a child exists: its pidfd comes along, sent by the helper */         \
	X(FAILED, 34) /* what was asked could not be done: ERR_* fields */                    \
	/* daemon <-> child (instance, node, resolver) on its stream */                       \
	X(READY, 48)   /* the child has entered its cell and waits to be checked */           \
	X(GO, 49)      /* checked: proceed (run: start the script; node: import) */           \
	X(CALL, 50)    /* one event for a function */                                         \
	X(REPLY, 51)   /* its answer */                                                       \
	X(PROFILE, 52) /* modules loaded, times, absent things, variables read */             \
	X(ASLEEP, 53)  /* a node is imported, frozen and now reads its control socket */      \
	X(NEED, 54)    /* resolver: wants a page or metadata */                               \
	X(GIVE, 55)    /* daemon's answer to NEED */                                          \
	X(RESULT, 56)  /* resolver: the lock, or ERR_* */                                     \
	X(DONE, 57)    /* run: the script is over; its process has let go of its files */     \
	X(AGAIN, 58)   /* a spare that forks: its call's processes are gone; STATUS: below */ \
	X(ADOPT, 59)   /* to a child forked ahead: what it is to be */                        \
	/* client <-> daemon on the run socket */                                             \
	X(HELLO, 64)	/* daemon: who I am, host id for mounts */                            \
	X(RUN, 65)	/* client: run this */                                                \
	X(SIGNAL, 66)	/* client: pass this signal on */                                     \
	X(PROGRESS, 67) /* daemon: a line for a person (resolving, downloading ...) */        \
	X(STARTED, 68)	/* daemon: user code runs now; timing so far */                       \
	X(EXIT, 69)	/* daemon: wait status and timing, or ERR_* */                        \
	X(STOPPED, 70)	/* daemon: the script was stopped, as by Ctrl-Z */

#define WIRE_TAGS(X)                                                                     \
	X(ERR_KIND, 1)                                                                   \
	X(ERR_TEXT, 2)                                                                   \
	X(ROLE, 3) /* "root" "node" "instance" "run" "resolver" "ahead" */               \
	X(NAME, 4)                                                                       \
	X(ARGV, 5) /* list */                                                            \
	X(ENV, 6)  /* list of NAME=VALUE */                                              \
	X(CWD, 7)                                                                        \
	X(MODULES, 8) /* list, import order */                                           \
	X(BODY, 9)                                                                       \
	X(STATUS, 10) /* u64 */                                                          \
	X(PID, 11)                                                                       \
	X(ID_FIRST, 12) /* first id of the block, in the parent user namespace */        \
	X(ID_COUNT, 13)                                                                  \
	X(NET, 14) /* u64 enum jail_net */                                               \
	X(PATH, 15)                                                                      \
	X(KIND, 16) /* how a script is given: "file" "stdin" "code" "module" "prompt" */ \
	X(CODE, 17)                                                                      \
	X(ENTRY, 18)	/* module.attribute */                                           \
	X(TIMING, 19)	/* list "name=microseconds" */                                   \
	X(ABSENT, 20)	/* list: import:NAME, meta:NAME, group:NAME */                   \
	X(ENV_READ, 21) /* list of NAME */                                               \
	X(FILES, 22)	/* list of paths opened outside the environment */               \
	X(SELF_US, 23)	/* list, parallel to MODULES */                                  \
	X(ORIGIN, 24)	/* list, parallel to MODULES: __file__ or "" */                  \
	X(LEFT, 25)	/* list: what an import left behind (threads=1, socket ...) */   \
	X(FDS, 26)	/* list: what each descriptor of the packet is */                \
	X(PYTHON, 27)                                                                    \
	X(MEMORY, 28) /* bytes */                                                        \
	X(PIDS, 29)                                                                      \
	X(CPU, 30) /* share in thousandths of one core */                                \
	X(TMP_BYTES, 31)                                                                 \
	X(WITH, 32) /* list of requirement lines */                                      \
	X(REQUIREMENTS, 33)                                                              \
	X(PEP723, 34)                                                                    \
	X(INDEX_URL, 35)                                                                 \
	X(FLAGS, 36) /* list of words */                                                 \
	X(HOST_ID, 37)                                                                   \
	X(MODE, 38)                                                                      \
	X(TEXT, 39)                                                                      \
	X(RDWR, 40) /* list of paths writable, parallel to mounts */                     \
	X(RDONLY, 41)                                                                    \
	X(SIGNO, 42)                                                                     \
	X(URL, 43)                                                                       \
	X(DEADLINE_MS, 44)                                                               \
	X(READS, 45) /* dists whose metadata was read; "*" when all were enumerated */   \
	X(INFO, 46)                                                                      \
	X(UID, 47)                                                                       \
	X(GID, 48)                                                                       \
	X(HOME, 49)                                                                      \
	X(CHUNK, 50)                                                                     \
	X(MEMORY_PEAK, 51)                                                               \
	X(TENANT, 52)                                                                    \
	X(CPU_TIME, 53) /* to the keeper: not 0: it is counted; from it: microseconds */

enum wire_type {
#define X(name, value) WIRE_##name = value,
	WIRE_MESSAGES(X)
#undef X
};

enum wire_tag {
#define X(name, value) WIRE_T_##name = value,
	WIRE_TAGS(X)
#undef X
};

/* What became of the cell of a spare that forks. The last two: it is to be thrown away. */
enum wire_again {
	WIRE_AGAIN_CLEAN,
	WIRE_AGAIN_UNTIDY, /* a call left something in it */
	WIRE_AGAIN_WORN	   /* it has used up its process ids */
};

/* How pip's settings (INFO of a RUN) begin when nothing may be asked of a network. It is no part of
 * a request's key: the same lock serves, however it was come by. */
#define WIRE_OFFLINE "{\"offline\": true, "

/* Who the daemon is listening to, and in what state. */
enum wire_phase {
	WIRE_FROM_MAKER,
	WIRE_FROM_KEEPER,
	WIRE_FROM_ROOT_STARTING,
	WIRE_FROM_ZYGOTE_ASLEEP,  /* nothing asked: may say nothing */
	WIRE_FROM_ZYGOTE_FORKING, /* asked to fork */
	WIRE_FROM_CHILD_BORN,	  /* before the daemon's check: READY or FAILED only */
	WIRE_FROM_CHILD_AHEAD,	  /* checked, and not told yet what it is to be */
	WIRE_FROM_NODE_IMPORTING,
	WIRE_FROM_INSTANCE_IDLE, /* no call outstanding */
	WIRE_FROM_INSTANCE_BUSY,
	WIRE_FROM_RESOLVER,
	WIRE_FROM_RUN_CHILD,
	WIRE_FROM_CLIENT_NEW, /* connected, said nothing yet */
	WIRE_FROM_CLIENT_RUNNING,
	WIRE_PHASES
};

/* May a peer in this phase send this type? The one table that S7 rests on. */
bool wire_may(enum wire_phase phase, uint16_t type);
const char *wire_type_name(uint16_t type);
const char *wire_phase_name(enum wire_phase phase);
