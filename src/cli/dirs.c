/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "cli/cli.h"

static char *user_dir(const char *variable, const char *below_home)
{
	const char *value = getenv(variable), *home = getenv("HOME");

	if (value && value[0] == '/')
		return mem_printf("%s/pipsqueak", value);
	return mem_printf("%s/%s/pipsqueak", home && *home ? home : "/tmp", below_home);
}

static char *own_dir(void)
{
	char path[4096];
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);

	if (n <= 0)
		return mem_strdup("/usr/bin");
	path[n] = '\0';
	*strrchr(path, '/') = '\0';
	return mem_strdup(path);
}

/* The first that exists: in a build tree, installed beside, installed below a prefix. */
static char *find_near(const char *own, const char *const *places, int mode)
{
	for (; *places; places++) {
		auto_free char *path = mem_printf("%s/%s", own, *places);
		char *real;

		if (access(path, mode) == 0 && (real = realpath(path, NULL)))
			return real;
	}
	return NULL;
}

int dirs_find(const char *dir_option, struct dirs *d, struct err *err)
{
	static const char *const libs[] = { "../../lib/bootstrap.py", "lib/bootstrap.py",
					    "../libexec/pipsqueak/bootstrap.py", NULL };
	static const char *const daemons[] = { "pipsqueakd", "../daemon/pipsqueakd",
					       "../libexec/pipsqueak/pipsqueakd", NULL };
	const char *base = dir_option ? dir_option : getenv("PIPSQUEAK_DIR");
	auto_free char *own = own_dir();

	memset(d, 0, sizeof(*d));
	if (base && *base) {
		d->base = base[0] == '/' ? mem_strdup(base) : NULL;
		if (!d->base) {
			auto_free char *cwd = getcwd(NULL, 0);

			if (!cwd)
				return err_sys(err, errno, "finding the working directory");
			d->base = mem_printf("%s/%s", cwd, base);
		}
		d->state = mem_printf("%s/state", d->base);
		d->cache = mem_printf("%s/cache", d->base);
		d->run = mem_printf("%s/run", d->base);
	} else if (geteuid() == 0) {
		d->state = mem_strdup("/var/lib/pipsqueak");
		d->cache = mem_strdup("/var/cache/pipsqueak");
		d->run = mem_strdup("/run/pipsqueak");
	} else {
		const char *runtime = getenv("XDG_RUNTIME_DIR");

		d->state = user_dir("XDG_STATE_HOME", ".local/state");
		d->cache = user_dir("XDG_CACHE_HOME", ".cache");
		d->run = runtime && runtime[0] == '/'
				 ? mem_printf("%s/pipsqueak", runtime)
				 : mem_printf("/tmp/pipsqueak-%u", (unsigned)geteuid());
	}
	d->user_cache = user_dir("XDG_CACHE_HOME", ".cache");
	d->lib = find_near(own, libs, R_OK);
	if (d->lib)
		*strrchr(d->lib, '/') = '\0';
	d->daemon = find_near(own, daemons, X_OK);
	return 0;
}

void dirs_done(struct dirs *d)
{
	free(d->state);
	free(d->cache);
	free(d->run);
	free(d->user_cache);
	free(d->base);
	free(d->lib);
	free(d->daemon);
}
