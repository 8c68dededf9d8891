/* SPDX-License-Identifier: Apache-2.0
 * Runs in: the command line. The texts of `pipsqueak help`.
 */
#pragma once

static const char help_overview[] =
	"Pipsqueak starts Python with heavy packages in milliseconds.\n"
	"\n"
	"usage: pipsqueak [--dir DIR] VERB ...\n"
	"\n"
	"  run      run a script, code or module with any packages\n"
	"  lock     write a pylock.toml of what a project or script requires\n"
	"  deploy   deploy a directory or file as a function\n"
	"  invoke   call a function\n"
	"  ls       list functions\n"
	"  rm       remove a function\n"
	"  logs     what a function printed\n"
	"  tree     the sleeping interpreters: what each holds, memory, uses\n"
	"  status   the daemon and what this host gives it\n"
	"  cache    packages on disk: what is there, is it whole, remove what is not needed\n"
	"  simulate replay a workload against policies for the tree\n"
	"  fit      the tree for a workload and a memory\n"
	"  daemon   run the daemon in the foreground\n"
	"  version\n"
	"  help VERB\n"
	"\n"
	"--dir DIR (or PIPSQUEAK_DIR) keeps state, cache and sockets below DIR. A daemon is "
	"started\n"
	"when none runs; it leaves after 10 minutes without work.\n";

static const struct {
	const char *verb, *text;
} help_verbs[] = {
	{ "run",
	  "usage: pipsqueak run [FLAGS] [SCRIPT | - | -c CODE | -m MODULE] [ARGUMENTS]\n"
	  "Run Python as `python3` would, forked from a sleeping interpreter. Without a script: a\n"
	  "prompt on a terminal, else the script is read from standard input. A leading word\n"
	  "python or python3 is accepted. Packages come from the script's PEP 723 block; when a\n"
	  "directory is run, from the first of its pylock.pipsqueak.toml, pylock.toml,\n"
	  "requirements.txt, pyproject.toml; and from:\n"
	  "  --with REQUIREMENT         a requirement (PEP 508) or a wheel's path or URL;\n"
	  "                             repeatable, commas separate\n"
	  "  --with-requirements FILE   a requirements.txt, pylock.toml or pyproject.toml\n"
	  "  --extra NAME, --group NAME of a pyproject.toml or pylock.toml; repeatable\n"
	  "  --from REQUIREMENT         its command: run --from httpie http --help. With --with, "
	  "too, a\n"
	  "                             SCRIPT that is no file is a command of the packages\n"
	  "  --index-url URL            instead of pip's configured index\n"
	  "  --index URL                asked before it: the first index that knows a name has "
	  "all\n"
	  "                             of it; repeatable\n"
	  "  --extra-index-url URL      beside it; repeatable\n"
	  "  --find-links PATH|URL      a directory of wheels, a wheel, or a page of links "
	  "(.html);\n"
	  "                             repeatable\n"
	  "  --exclude-newer WHEN       only what was uploaded until then: 2026-01-31 (the day\n"
	  "                             counts), 2026-01-31T12:00:00Z, '7 days'\n"
	  "  --pre                      prereleases, too\n"
	  "  --allow-sdist              build packages that have no wheel for this interpreter,\n"
	  "                             without network; code of theirs runs in a sandbox\n"
	  "  --accept-record DIST       take DIST's wheel though its RECORD does not vouch for "
	  "its\n"
	  "                             files; repeatable\n"
	  "  --strict                   packages that bring different files of one name are an "
	  "error\n"
	  "  --upgrade                  resolve again what was resolved before\n"
	  "  --offline                  with what is in the cache\n"
	  "  --python PATH|VERSION      the interpreter (default: the daemon's)\n"
	  "Permissions. By default a script may read the working directory and its own (unless "
	  "that\n"
	  "is HOME or /), write its private /tmp and HOME, and use the loopback of its own "
	  "network.\n"
	  "  --allow-read=PATH          show PATH, read-only; repeatable\n"
	  "  --allow-write[=PATH]       PATH (default: the working directory) may be written\n"
	  "  --allow-env[=NAME]         pass the variable NAME, or all\n"
	  "  --allow-net                reach the network (IPv4, names; not the host's loopback "
	  "nor\n"
	  "                             link-local addresses); by pasta, of package passt\n"
	  "  -A, --allow-all            files, environment and, where there is one, the network as "
	  "a\n"
	  "                             plain python3 has them\n"
	  "Other flags:\n"
	  "  --timing                   where the milliseconds went, on standard error\n"
	  "  -q, --quiet                no progress\n"
	  "  --json                     progress as JSON, an event a line, on standard error\n"
	  "Exit code: the script's; by signal if it died of one; else 2 usage, 3 not found,\n"
	  "4 conflict, 6 limit, 7 denied, 8 corrupt, 9 index, 10 timeout, 11 system, 13 start.\n" },
	{ "lock",
	  "usage: pipsqueak lock [DIR|SCRIPT] [-o FILE] [FLAGS]\n"
	  "Resolve what a project (its requirements.txt, else its pyproject.toml) or a script's "
	  "PEP 723\n"
	  "block requires and write it as pylock.toml (PEP 751), which uv and pip install from, "
	  "too. A\n"
	  "lock is for one interpreter and platform. Default: the working directory. FILE defaults "
	  "to\n"
	  "DIR/pylock.toml, or pylock.NAME.toml beside the script; - is standard output.\n"
	  "FLAGS are --with, --with-requirements, --extra, --group, --python, --index-url,\n"
	  "--extra-index-url, --find-links, --exclude-newer, --pre, --allow-sdist, --upgrade,\n"
	  "--offline (see: pipsqueak help run), -q.\n" },
	{ "deploy",
	  "usage: pipsqueak deploy DIR|FILE [--name NAME] [--python PATH|VERSION] [FLAGS]\n"
	  "Deploy a function: code, and packages from pylock.pipsqueak.toml, pylock.toml,\n"
	  "requirements.txt, pyproject.toml or a PEP 723 block, whichever is there first. Entry by "
	  "convention (handler.handler,\n"
	  "main.handler, lambda_function.lambda_handler, f.f) or from pipsqueak.toml. NAME "
	  "defaults\n"
	  "to the directory's. At most 256 MiB in 20,000 files. FLAGS are --extra, --group,\n"
	  "--index-url, --extra-index-url, --find-links, --exclude-newer, --pre, --allow-sdist,\n"
	  "--accept-record, --strict,\n"
	  "--offline, -q, --json (see: pipsqueak help run; with --json the answer is JSON, "
	  "too).\n" },
	{ "invoke",
	  "usage: pipsqueak invoke NAME [JSON | @FILE | -] [--timing]\n"
	  "Call a function with an event (default null; at most 6 MiB) and print its answer.\n" },
	{ "ls", "usage: pipsqueak ls [--json]\n" },
	{ "rm", "usage: pipsqueak rm NAME\nRunning calls end first.\n" },
	{ "logs",
	  "usage: pipsqueak logs NAME\nThe last MiB that the function's instances printed.\n" },
	{ "status", "usage: pipsqueak status [--json]\n" },
	{ "tree",
	  "usage: pipsqueak tree [--json]\n"
	  "The sleeping interpreters: what each adds to the one above, its own memory, forks.\n" },
	{ "cache",
	  "usage: pipsqueak cache dir | ls [--json] | size [--json] | verify | clean\n"
	  "       pipsqueak cache prune [--to SIZE] [--older AGE]\n"
	  "Wheels as downloaded, unpacked wheels, their bytecode, and environments made of them.\n"
	  "  dir      where they are\n"
	  "  ls       each of them: kind, size, last use, what it is\n"
	  "  size     the sums, and the budget (pipsqueakd --cache-size)\n"
	  "  verify   compare every file with its hash; exit code 8 when one differs\n"
	  "  prune    remove what saves least time per byte until SIZE (512M, 4G) is left, or\n"
	  "           what was not used for AGE (30m, 12h, 7d); both may be given. Without: to "
	  "the\n"
	  "           budget\n"
	  "  clean    remove all that may be removed, what indexes answered too\n"
	  "What a running process or a deployed function needs always stays.\n" },
	{ "simulate",
	  "usage: pipsqueak simulate WORKLOAD [--policy P,...] [--memory SIZE,...] [FLAGS]\n"
	  "What calls would still have to import, by the model of memory in docs/TREE.md. "
	  "WORKLOAD\n"
	  "is a directory with functions.jsonl, packages.json and closures.json, each function of\n"
	  "which is called once, or generated[:FUNCTIONS].\n"
	  "  --policy P        none, root, sock, lru, gdsf, forklift:FILE (first fit, and best "
	  "fit),\n"
	  "                    tree:FILE (of `fit`; best fit), online, fitted, bound; repeatable\n"
	  "  --memory SIZE     of the tree: 512M, 2G (powers of ten; default 2G); repeatable\n"
	  "  --train N         the first N calls teach, and are not counted\n"
	  "  --splits N        the mean of N orders: Python's random.Random(0..N-1).shuffle\n"
	  "  --half-life CALLS of demand, for online (default 1000)\n"
	  "Calls drawn from the functions instead, when one of these is given:\n"
	  "  --calls N         so many (default 5000)\n"
	  "  --zipf S          popularity of the k-th function: k to the power of -S (default 0)\n"
	  "  --drift PART      in the middle this part of the functions gives way to others; BACK "
	  "is\n"
	  "                    then after how many calls what a call is to expect is within 1.2 x "
	  "of\n"
	  "                    a tree that is fitted to the new mix\n"
	  "  --burst P         the chance that a call repeats the one before\n"
	  "  --one-shot P      the chance that a call is of a function that is called once\n"
	  "  --seed N          (default 0)\n"
	  "Output: a table, or --json; --svg FILE: residual against memory.\n" },
	{ "fit",
	  "usage: pipsqueak fit --memory SIZE --from WORKLOAD -o FILE\n"
	  "Choose the tree that saves the calls of WORKLOAD (see: pipsqueak help simulate) most\n"
	  "within SIZE (2G; powers of ten), and write it as JSON: nested \"packages\" and\n"
	  "\"children\". FILE - is standard output.\n" },
	{ "daemon",
	  "usage: pipsqueak daemon [OPTIONS]\n"
	  "Run pipsqueakd in the foreground; OPTIONS are its own (pipsqueakd --help).\n" },
};
