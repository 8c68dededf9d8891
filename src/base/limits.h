/* SPDX-License-Identifier: Apache-2.0
 * Runs in: every process.
 *
 * Every ceiling in one place: whatever grows because of data from outside is bounded here.
 * Units are in the names. Rooms use these names and never numbers of their own.
 */
#pragma once

#define KIB (1024UL)
#define MIB (1024UL * KIB)
#define GIB (1024UL * MIB)

/* base */
#define LIMIT_BUF_DEFAULT (64 * MIB)
#define LIMIT_LOG_LINE_BYTES (2 * KIB)

/* wire */
#define LIMIT_PACKET_BYTES                                                     \
	(128 * KIB) /* one SOCK_SEQPACKET message; below net.core.wmem_default \
		     */
#define LIMIT_PACKET_FDS 48
#define LIMIT_FRAME_BYTES (16 * MIB) /* one message on an instance's stream */

/* index */
#define LIMIT_INDEX_PAGE_BYTES (64 * MIB)
#define LIMIT_PAGE_FRESH_S \
	600 /* then the index is asked whether its page changed; its max-age counts */
#define LIMIT_PAGE_FRESH_MAX_S 86400L  /* whatever max-age says */
#define LIMIT_HEADER_BYTES (256 * KIB) /* of one answer, redirects included */
#define LIMIT_ERROR_PAGE_BYTES (64 * KIB)
#define LIMIT_FETCH_MS (300L * 1000) /* a page, metadata or a range */
#define LIMIT_FETCH_WHEEL_MS (6L * 3600 * 1000)
#define LIMIT_RETRY_AFTER_S 30 /* longer is not waited for */
#define LIMIT_METADATA_BYTES (4 * MIB)
#define LIMIT_ZIP_DIRECTORY_BYTES (32 * MIB) /* of a wheel that is read by ranges */
#define LIMIT_INDEX_SOURCES 64 /* indexes, find-links or hosts in one list of settings */
#define LIMIT_TAGS 16384       /* that one interpreter takes */
#define LIMIT_WHEEL_TAGS 1024  /* that one file name's compressed tags stand for */
#define LIMIT_WHEEL_BYTES (4 * GIB)
#define LIMIT_REDIRECTS 10
#define LIMIT_RETRIES 4
#define LIMIT_DOWNLOADS 8
#define LIMIT_PARTIAL_BYTES (4 * GIB) /* of broken off downloads that are kept */
#define LIMIT_PARTIAL_S 86400L
#define LIMIT_ANSWERS_BYTES (1 * GIB) /* index pages, METADATA, builds' results that are kept */
#define LIMIT_ANSWERS 100000	      /* files of them */
#define LIMIT_EARLY_BYTES (96 * MIB)  /* of wheels under way that nobody has asked for yet */
#define LIMIT_RESOLVE_ROUNDS 20000
#define LIMIT_RESOLVE_MS (300L * 1000)
#define LIMIT_REQUIREMENTS_BYTES (1 * MIB) /* one file of them */
#define LIMIT_INPUTS_BYTES (6 * MIB)	   /* all that one resolution is told */
#define LIMIT_NEEDS 64			   /* files and wheels that requirements name */
#define LIMIT_LOCAL_WHEELS 24		   /* of them wheels: each is a descriptor in a packet */
#define LIMIT_LOCK_DISTS 4096
#define LIMIT_ACCEPTED 64		     /* dists that one request vouches for */
#define LIMIT_BUILD_MS (600 * 1000)	     /* one sdist, unless the daemon is told otherwise */
#define LIMIT_BUILD_MEMORY_BYTES (2 * GIB)   /* likewise */
#define LIMIT_BUILD_UNPACKED_BYTES (1 * GIB) /* sdist, what the build makes of it, each output */
#define LIMIT_BUILD_PIDS 256
#define LIMIT_BUILD_DEPTH 4 /* sdists that are needed to build one another */
#define LIMIT_BUILD_REQUIRES 64
#define LIMIT_BUILD_PLAN_BYTES (32 * KIB)     /* what a build is told */
#define LIMIT_BUILDS 2			      /* builds and looks at a time */
#define LIMIT_RESOLVE_SDISTS 200	      /* looked at in one resolution */
#define LIMIT_RESOLVE_BUILD_MS (3600L * 1000) /* a resolution that may build */

/* store */
#define LIMIT_WHEEL_MEMBERS 200000
#define LIMIT_WHEEL_UNPACKED_BYTES (16 * GIB)
#define LIMIT_WHEEL_RATIO 1000 /* unpacked bytes per packed byte of one member above 1 MiB */
#define LIMIT_WHEEL_PATH_BYTES 1024
#define LIMIT_RECORD_BYTES (64 * MIB)
#define LIMIT_WHOLE_MEMBER_BYTES (64 * MIB) /* larger ones are unpacked piece by piece */
#define LIMIT_WORKERS 4			    /* threads or processes of one installer */
#define LIMIT_CLASHES 10000		    /* files that two dists of one environment bring */
#define LIMIT_CONTENTS_BYTES (64 * MIB)	    /* what is kept of manifests */
#define LIMIT_SCRIPT_BYTES (256 * MIB)	    /* of the "scripts" scheme: may be a program */
#define LIMIT_COMPILE_MS (300 * 1000)
#define LIMIT_HINT_BYTES (1 * MIB) /* which modules are to be compiled first */
#define LIMIT_IMPORTS 4096	   /* of other wheels, that are noted of one wheel */
#define LIMIT_COMPILERS 2
#define LIMIT_INSTALL_MS (600 * 1000)
#define LIMIT_INSTALLERS 2

/* jail */
#define LIMIT_CELL_POOL 4
#define LIMIT_CELL_MS (10 * 1000)
#define LIMIT_TMP_BYTES (512 * MIB)
#define LIMIT_TMP_INODES 100000
#define LIMIT_TREE_DEPTH 8
#define LIMIT_INOTIFY 64      /* instances of all sandboxes; hosts let a user have 128 */
#define LIMIT_CELL_INOTIFY 16 /* of one */

/* zygote */
#define LIMIT_NODES 1000
#define LIMIT_NODE_PIDS 64	/* threads and processes of one node */
#define LIMIT_AHEAD 16		/* children forked ahead, of all nodes */
#define LIMIT_AHEAD_MS 20	/* without a fork, before one is forked ahead */
#define LIMIT_AHEAD_LATE_MS 500 /* where forks never cease */
#define LIMIT_MODULES 20000
#define LIMIT_PROFILE_BYTES (4 * MIB)
#define LIMIT_SELF_US (3600 * 1000000UL) /* of one module's import, whatever a profile says */
#define LIMIT_FORK_MS (10 * 1000)
#define LIMIT_FRAME_MS (10 * 1000) /* between two pieces of one message */
#define LIMIT_GROW_MS (300 * 1000)

/* function */
#define LIMIT_FUNCTIONS 10000
#define LIMIT_EVENT_BYTES (6 * MIB)
#define LIMIT_REPLY_BYTES (6 * MIB)
#define LIMIT_QUEUE 256
#define LIMIT_LOG_BYTES (1 * MIB) /* kept per function */
#define LIMIT_APP_BYTES (256 * MIB)
#define LIMIT_APP_FILES 20000
#define LIMIT_APP_PATH_BYTES 512
#define LIMIT_ENTRIES 8	       /* candidates for a function's handler */
#define LIMIT_CONCURRENCY 256  /* instances of one function */
#define LIMIT_TIMEOUT_S 900    /* of one call, as pipsqueak.toml may ask */
#define LIMIT_FUNCTION_ENV 256 /* variables that pipsqueak.toml may set */
#define LIMIT_TOML_BYTES (64 * KIB)
#define LIMIT_JOB_OUTPUT_BYTES (1 * MIB) /* what a small job may print */
#define LIMIT_NAMES 1000000		 /* interned modules, dists, variables */
#define LIMIT_LOCKS 32			 /* of scripts, kept ready in memory */
#define LIMIT_FACTS 10000		 /* profiles, locks and the like in the database */
#define LIMIT_FACTS_BYTES (32 * MIB)	 /* of their texts, but for the one written last */
#define LIMIT_LOADS 2000		 /* modules of one dist that are known to be loaded */
#define LIMIT_SCRIPTS 256		 /* scripts whose profiles are kept in memory */
#define LIMIT_GROWING 2			 /* nodes being made at a time */
#define LIMIT_TENANT_ROOTS 64		 /* interpreters that tenants have for themselves */
#define LIMIT_GROW_QUEUE 256
#define LIMIT_TIMED_STARTS 16	       /* cold starts for one whose imports are timed again, */
#define LIMIT_TIMED_US (5 * 1000000UL) /* and the time between two, of a version */
#define LIMIT_COLD_DISTS 256	       /* whose warm-up lines are not run any more */
#define LIMIT_GROW_TRIES 6	       /* leaving out more modules each time */
#define LIMIT_OWN_NAMES 10000	       /* entries of a script's directory that are looked at */
#define LIMIT_JSON_DEPTH 512
#define LIMIT_SPARES 4			  /* instances of one function that are forked ahead */
#define LIMIT_ALL_SPARES 64		  /* of all functions */
#define LIMIT_SPARE_US (30 * 1000000UL)	  /* a spare nobody calls */
#define LIMIT_IDLE_US (60 * 1000000UL)	  /* a warm instance nobody calls */
#define LIMIT_LOG_BURST_BYTES (256 * KIB) /* output of a function, or of all nodes, in a second */
#define LIMIT_SAYS_BURST_BYTES (64 * KIB) /* of one node, in the daemon's log */
#define LIMIT_PYINFO_MS (30 * 1000)
#define LIMIT_EXPLAIN_NODES 12	    /* beside the best one, in one explanation */
#define LIMIT_EXPLAIN_REASONS 8	    /* of one node */
#define LIMIT_EXPLAIN_MODULES 200   /* that cannot sleep, of one function */
#define LIMIT_EXPLAIN_USERS 100	    /* functions of one node that are named */
#define LIMIT_EXPLAIN_SUBJECTS 2000 /* functions and scripts that are asked about one node */

#define LIMIT_HALF_LIFE_S                                                                      \
	3600			    /* demand halves in this time: of two equal functions, one \
				       called an hour ago counts half of one called now */
#define LIMIT_DEMAND_SAVE_S 10	    /* what a kill of the daemon may lose of it */
#define LIMIT_CLOSURES 8	    /* of dependencies, of one dist */
#define LIMIT_PRIORS 4000	    /* nodes of a tree to start from, for each interpreter */
#define LIMIT_TREE_BYTES (64 * MIB) /* of such a file */
#define LIMIT_MEASURED 8	    /* nodes whose memory is read again at a time */

/* policy */
#define LIMIT_CANDIDATES 16384 /* sets that might become nodes */

/* sim */
#define LIMIT_WORKLOAD_BYTES (256 * MIB) /* one file of a workload */

/* api */
#define LIMIT_HTTP_CONNECTIONS 1024
#define LIMIT_HTTP_UPLOAD_BYTES (256 * MIB)
#define LIMIT_RUN_CLIENTS 256
#define LIMIT_PROGRESS_BYTES                                                \
	((int)(64 * KIB)) /* not yet read by a client: then no more is told \
			   */
