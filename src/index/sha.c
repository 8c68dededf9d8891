/* SPDX-License-Identifier: Apache-2.0 */
#include "index/sha.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/limits.h"
#include "base/mem.h"

struct sha {
	EVP_MD_CTX *ctx;
};

struct sha *sha_new(void)
{
	struct sha *s = mem_new(struct sha);

	s->ctx = EVP_MD_CTX_new();
	must(s->ctx);
	sha_restart(s);
	return s;
}

void sha_free(struct sha *s)
{
	if (!s)
		return;
	EVP_MD_CTX_free(s->ctx);
	free(s);
}

void sha_add(struct sha *s, const void *data, size_t len)
{
	must(EVP_DigestUpdate(s->ctx, data, len) == 1);
}

void sha_restart(struct sha *s)
{
	must(EVP_DigestInit_ex(s->ctx, EVP_sha256(), NULL) == 1);
}

void sha_hex(struct sha *s, char *out_hex)
{
	static const char digits[] = "0123456789abcdef";
	unsigned char sum[32];

	must(EVP_DigestFinal_ex(s->ctx, sum, NULL) == 1);
	for (size_t i = 0; i < sizeof(sum); i++) {
		out_hex[2 * i] = digits[sum[i] >> 4];
		out_hex[2 * i + 1] = digits[sum[i] & 15];
	}
	out_hex[64] = '\0';
}

void sha_text(const void *data, size_t len, char *out_hex)
{
	struct sha *s = sha_new();

	sha_add(s, data, len);
	sha_hex(s, out_hex);
	sha_free(s);
}

int sha_file(const char *path, char *out_hex, struct err *err)
{
	auto_close int fd = open(path, O_RDONLY | O_CLOEXEC);
	auto_free char *room = mem_zero(1, 256 * KIB);
	struct sha *s;
	ssize_t n;

	if (fd < 0)
		return err_sys(err, errno, "open '%s'", path);
	s = sha_new();
	while ((n = read(fd, room, 256 * KIB)) > 0 || (n < 0 && errno == EINTR))
		if (n > 0)
			sha_add(s, room, (size_t)n);
	if (n < 0)
		err_sys(err, errno, "read '%s'", path);
	else
		sha_hex(s, out_hex);
	sha_free(s);
	return n < 0 ? -1 : 0;
}

bool sha_is_hex(const char *s)
{
	return strlen(s) == 64 && strspn(s, "0123456789abcdef") == 64;
}
