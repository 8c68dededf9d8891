/* SPDX-License-Identifier: Apache-2.0 */
#include <ctype.h>
#include <jansson.h>
#include <string.h>

#include "base/log.h"
#include "function/knowledge.h"
#include "function/priv.h"
#include "function/upload.h"

struct subject *subject_new(struct functions *f, const char *key, struct interp *interp,
			    struct lock *lock)
{
	struct subject *s = mem_new(struct subject);

	s->f = f;
	s->key = mem_strdup(key);
	s->interp = interp;
	s->lock = lock;
	s->closure = intern_put2(&f->names, "lock:", lock->hash);
	s->lock_ids = mem_zero(lock->ndists + 1, sizeof(uint32_t));
	for (size_t i = 0; i < lock->ndists; i++) {
		const struct lock_dist *d = &lock->dists[i];
		auto_free char *text = mem_printf("dist:%s %s %s", d->name, d->version, d->sha256);

		s->lock_ids[i] = intern_put(&f->names, text);
		ids_add(&s->dists, s->lock_ids[i]);
	}
	ids_seal(&s->dists);
	s->refs = 1;
	return s;
}

/* Read by an interpreter at its start, and so too late for one that is forked. What the bootstrap
 * can follow (pipsqueak_afresh.py has the values that change nothing) is not among them. */
static bool is_for_the_start(const char *name)
{
	static const char *const later[] = {
		"PYTHONUNBUFFERED", "PYTHONIOENCODING", "PYTHONDONTWRITEBYTECODE",
		"PYTHONNOUSERSITE", "PYTHONBREAKPOINT", "PYTHONASYNCIODEBUG",
		"PYTHONSTARTUP",    "PYTHON_COLORS",	"PYTHON_HISTORY",
	};

	for (size_t i = 0; i < array_len(later); i++)
		if (strcmp(name, later[i]) == 0)
			return false;
	return strncmp(name, "PYTHON", 6) == 0;
}

void subject_set_env(struct subject *s, const char *const *env)
{
	static const char *const same[] = { "PATH=/usr/bin:/bin", "HOME=" JAIL_HOME,
					    "LANG=C.UTF-8" };
	size_t n = 0, count = 0;

	upload_names_free(s->env_names);
	s->afresh = false;
	while (env && env[n])
		n++;
	s->env_names = mem_zero(n + 1, sizeof(char *));
	for (size_t i = 0; i < n; i++) {
		bool differs = true;

		for (size_t k = 0; k < array_len(same); k++)
			differs = differs && strcmp(same[k], env[i]) != 0;
		if (!differs)
			continue;
		s->env_names[count] = mem_strndup(env[i], strcspn(env[i], "="));
		s->afresh = s->afresh || is_for_the_start(s->env_names[count]);
		count++;
	}
}

void subject_set_tenant(struct subject *s, const char *tenant)
{
	s->tenant = tenant ? intern_put2(&s->f->names, "tenant:", tenant) : 0;
}

static void forget_profile(struct subject *s)
{
	free(s->seen);
	free(s->self_us);
	free(steal(s->dist_us));
	s->seen = NULL;
	s->self_us = NULL;
	s->nseen = 0;
	s->import_us = 0;
	ids_reset(&s->modules);
	ids_reset(&s->seen_dists);
}

void subject_unref(struct subject *s)
{
	if (!s || --s->refs)
		return;
	if (s->noted)
		demand_forget(s->f, s);
	for (uint32_t i = 0; i < s->f->nnodes; i++)
		if (s->f->nodes[i]->sponsor == s)
			s->f->nodes[i]->sponsor = NULL;
	forget_profile(s);
	for (size_t i = 0; s->needs && i < s->lock->ndists; i++)
		ids_done(&s->needs[i]);
	free(s->needs);
	free(s->lock_ids);
	ids_done(&s->items);
	ids_done(&s->told);
	ids_done(&s->hopeless);
	ids_done(&s->modules);
	ids_done(&s->seen_dists);
	ids_done(&s->dists);
	ids_done(&s->provides);
	ids_done(&s->lock_provides);
	ids_done(&s->env);
	ids_done(&s->excluded);
	upload_names_free(s->own);
	upload_names_free(s->env_names);
	lock_free(s->lock);
	explain_forget(s);
	free(s->cannot);
	free(s->key);
	free(s);
}

void subject_resum(struct subject *s)
{
	s->import_us = s->other_us = 0;
	free(s->self_us);
	s->self_us = mem_zero(s->modules.n, sizeof(*s->self_us));
	free(s->dist_us);
	s->dist_us = mem_zero(s->seen_dists.n + 1, sizeof(*s->dist_us));
	for (size_t i = 0; i < s->nseen; i++) {
		const struct seen_module *m = &s->seen[i];

		s->import_us += m->self_us;
		s->self_us[ids_place(&s->modules, m->module)] = m->self_us;
		if (m->dist == INTERN_NONE)
			s->other_us += m->self_us;
		else
			s->dist_us[ids_place(&s->seen_dists, m->dist)] += m->self_us;
	}
	s->gen = 0;
	s->items_gen = 0;
	s->sampled = false;
}

/* The sets that policy reads, out of the list in import order. */
static void seal_profile(struct subject *s)
{
	ids_reset(&s->modules);
	ids_reset(&s->seen_dists);
	for (size_t i = 0; i < s->nseen; i++) {
		ids_add(&s->modules, s->seen[i].module);
		ids_add(&s->seen_dists, s->seen[i].dist);
	}
	ids_seal(&s->modules);
	ids_seal(&s->seen_dists);
	subject_resum(s);
}

static void add_seen(struct subject *s, uint32_t module, uint32_t dist, uint64_t self_us)
{
	if (module == INTERN_NONE || s->nseen >= LIMIT_MODULES)
		return;
	if ((s->nseen & (s->nseen - 1)) == 0)
		s->seen = mem_resize(s->seen, (s->nseen ? s->nseen * 2 : 1) * sizeof(*s->seen));
	/* It comes out of a sandbox: sums of it must not wrap around. */
	s->seen[s->nseen++] = (struct seen_module){ module, dist,
						    self_us < LIMIT_SELF_US ? self_us
									    : LIMIT_SELF_US };
}

static bool is_module_name(const char *name)
{
	if (!*name || strlen(name) > 300 ||
	    strncmp(name, "__m", 3) == 0) /* __main__, __mp_main__ */
		return false;
	for (const char *p = name; *p; p++)
		if (!isalnum((unsigned char)*p) && *p != '_' && *p != '.' &&
		    (unsigned char)*p < 0x80)
			return false;
	return true;
}

static bool is_own(const struct subject *s, const char *module)
{
	size_t len = strcspn(module, ".");

	for (char **own = s->own; own && *own; own++) {
		const char *name = *own + (**own == '~');

		if (strncmp(name, module, len) == 0 && !name[len])
			return true;
	}
	return false;
}

bool subject_place(struct subject *s, const char *name, const char *origin, uint32_t *out_dist)
{
	struct functions *f = s->f;
	size_t env_len = strlen(JAIL_ENV "/");
	int owner;

	*out_dist = INTERN_NONE;
	if (!is_module_name(name) || is_own(s, name))
		return false;
	if (!*origin) /* built in, frozen, or a namespace package */
		return true;
	if (strncmp(origin, s->interp->stdlib, strlen(s->interp->stdlib)) == 0)
		return !strstr(origin, "/site-packages/") && !strstr(origin, "/dist-packages/");
	if (strncmp(origin, JAIL_ENV "/", env_len) != 0 || !s->lock->ndists)
		return false;
	owner = store_owner(f->config.store, s->lock, origin + env_len);
	if (owner < 0 || (size_t)owner >= s->lock->ndists)
		return false;
	const struct lock_dist *d = &s->lock->dists[owner];
	auto_free char *text = mem_printf("dist:%s %s %s", d->name, d->version, d->sha256);

	*out_dist = intern_put(&f->names, text);
	return *out_dist != INTERN_NONE;
}

static bool has_seen(const struct subject *s, uint32_t module)
{
	return policy_set_has(ids_set(&s->modules), module);
}

/* What Requires-Dist says, among the dists of the lock: an answer for each of them. */
struct needing {
	struct subject *s;
	struct ids *of;
};

static void add_need(void *ctx, const char *name)
{
	struct needing *n = ctx;
	const struct lock_dist *d = lock_find(n->s->lock, name);

	if (d)
		ids_add(n->of, (uint32_t)(d - n->s->lock->dists));
}

void subject_needs(struct subject *s)
{
	if (s->needs || !s->lock->ndists)
		return;
	s->needs = mem_zero(s->lock->ndists, sizeof(*s->needs));
	for (size_t i = 0; i < s->lock->ndists; i++) {
		struct needing n = { s, &s->needs[i] };

		store_names(s->f->config.store, s->lock, i, "requires", add_need, &n);
		ids_seal(&s->needs[i]);
	}
}

static json_t *needs_json(const struct subject *s)
{
	json_t *all = json_object();

	for (size_t i = 0; s->needs && i < s->lock->ndists; i++) {
		json_t *list = json_array();

		for (size_t k = 0; k < s->needs[i].n; k++)
			json_array_append_new(list,
					      json_string(s->lock->dists[s->needs[i].v[k]].name));
		json_object_set_new(all, s->lock->dists[i].name, list);
	}
	return all;
}

static void load_needs(struct subject *s, const json_t *all)
{
	const json_t *name;
	size_t k;

	if (!json_object_size(all))
		return;
	s->needs = mem_zero(s->lock->ndists + 1, sizeof(*s->needs));
	for (size_t i = 0; i < s->lock->ndists; i++) {
		struct needing n = { s, &s->needs[i] };

		json_array_foreach(json_object_get(all, s->lock->dists[i].name), k,
				   name) if (json_is_string(name))
			add_need(&n, json_string_value(name));
		ids_seal(&s->needs[i]);
	}
}

void subject_save(struct subject *s)
{
	struct functions *f = s->f;
	json_t *modules = json_array(), *root;
	struct err err;
	char *text;

	for (size_t i = 0; i < s->nseen; i++) {
		const char *dist = s->seen[i].dist == INTERN_NONE
					   ? ""
					   : intern_name(&f->names, s->seen[i].dist);

		json_array_append_new(modules, json_pack("[s, I, s]",
							 intern_name(&f->names, s->seen[i].module),
							 (json_int_t)s->seen[i].self_us, dist));
	}
	root = json_pack("{s:o, s:o, s:I}", "modules", modules, "needs", needs_json(s), "profiles",
			 (json_int_t)s->profiles);
	text = json_dumps(root, JSON_COMPACT);
	json_decref(root);
	if (text && state_put(f->state, STATE_PROFILE, s->key, 0, text, &err) < 0)
		log_warn("function", "keeping a profile: %s", err.text);
	free(text);
}

void subject_load(struct subject *s)
{
	struct functions *f = s->f;
	auto_buf struct buf text = { 0 };
	json_t *root, *v;
	struct err err;
	size_t i;

	if (state_get(f->state, STATE_PROFILE, s->key, 0, &text, &err) != 1)
		return;
	root = json_loads(text.data, 0, NULL);
	json_array_foreach(json_object_get(root, "modules"), i, v)
	{
		const char *name = json_string_value(json_array_get(v, 0));
		const char *dist = json_string_value(json_array_get(v, 2));

		if (name && dist)
			add_seen(s, intern_put(&f->names, name),
				 *dist ? intern_put(&f->names, dist) : INTERN_NONE,
				 (uint64_t)json_integer_value(json_array_get(v, 1)));
	}
	s->profiles = root ? 1 : 0;
	if (json_integer_value(json_object_get(root, "profiles")) >= PROFILES_ENOUGH)
		s->profiles = PROFILES_ENOUGH; /* a restart is no reason to record it again */
	load_needs(s, json_object_get(root, "needs"));
	json_decref(root);
	seal_profile(s);
}

void subject_learn(struct subject *s, const struct zygote_profile *p)
{
	struct ids before = { 0 };
	bool changed;

	for (size_t i = 0; i < s->modules.n; i++)
		ids_add(&before, s->modules.v[i]);
	if (s->replace)
		forget_profile(s);
	for (size_t i = 0; i < p->nmodules; i++) {
		uint32_t dist, module;

		if (!subject_place(s, p->modules[i], p->origins[i], &dist))
			continue;
		module = intern_put(&s->f->names, p->modules[i]);
		if (!has_seen(s, module))
			add_seen(s, module, dist, p->self_us[i]);
	}
	seal_profile(s);
	changed = !s->profiles || before.n != s->modules.n ||
		  (before.n && memcmp(before.v, s->modules.v, before.n * sizeof(uint32_t)) != 0);
	ids_done(&before);
	if (s->profiles < UINT32_MAX)
		s->profiles++;
	subject_needs(s);
	if (changed || s->profiles == PROFILES_ENOUGH)
		subject_save(s);
	if (changed) {
		loads_learn(s);
		s->tries = 0;
		ids_reset(&s->hopeless);
		free(steal(s->cannot));
	}
	demand_note(s->f, s, 0);
	grow_consider(s->f, s);
}

void subject_assume(struct subject *s, size_t dist, const char *module, uint64_t us)
{
	if (is_module_name(module))
		add_seen(s, intern_put(&s->f->names, module), s->lock_ids[dist], us);
}

struct assuming {
	struct subject *s;
	size_t dist;
	uint64_t us;
};

static void assume_one(void *ctx, const char *name)
{
	const struct assuming *a = ctx;

	subject_assume(a->s, a->dist, name, a->us);
}

void subject_assume_top(struct subject *s, size_t dist, uint64_t us)
{
	struct assuming a = { s, dist, us };

	store_names(s->f->config.store, s->lock, dist, "top_level", assume_one, &a);
}

void subject_assumed(struct subject *s)
{
	s->profiles = 1;
	seal_profile(s);
}

void subject_correct(struct subject *s, const struct zygote_profile *p)
{
	for (size_t i = 0; i < p->nmodules; i++) {
		uint32_t module = intern_put(&s->f->names, p->modules[i]), dist;
		size_t at = 0;

		while (at < s->nseen && s->seen[at].module != module)
			at++;
		if (at < s->nseen)
			s->seen[at].self_us = p->self_us[i];
		else if (subject_place(s, p->modules[i], p->origins[i], &dist))
			add_seen(s, module, dist, p->self_us[i]);
	}
	seal_profile(s);
}
