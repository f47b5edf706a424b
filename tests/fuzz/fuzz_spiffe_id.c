/*
 * Property: spiffe_id_parse agrees with a checker that works another way (a small automaton over
 * the whole text), and what it accepts is put together again from its parts.
 */
#include <postern/spiffe.h>

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/* spiffe://[a-z0-9._-]{1,255}(/segment)* where no segment is "", "." or "..". */
static bool naive(const char *p, size_t n)
{
    static const char domain_chars[] = "abcdefghijklmnopqrstuvwxyz0123456789._-";
    static const char path_chars[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    char *z = malloc(n + 1);
    CHECK(z != NULL);
    memcpy(z, p, n);
    z[n] = '\0';
    bool ok = n <= 2048 && strlen(z) == n && strncmp(z, "spiffe://", 9) == 0;
    if (ok) {
        size_t domain = strspn(z + 9, domain_chars);
        ok = domain >= 1 && domain <= 255;
        const char *rest = z + 9 + domain;
        while (ok && *rest != '\0') {
            size_t seg = rest[0] == '/' ? strspn(rest + 1, path_chars) : 0;
            ok = seg > 0 && !(seg == 1 && rest[1] == '.') &&
                 !(seg == 2 && rest[1] == '.' && rest[2] == '.');
            rest += 1 + seg;
        }
    }
    free(z);
    return ok;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str text = {(const char *)data, size};
    struct spiffe_id id;
    struct spiffe_id again;
    struct err err = ERR_INIT;
    bool ok = spiffe_id_parse(text, &id, &err) == 0;
    CHECK(ok == naive(text.p != NULL ? text.p : "", size));
    if (!ok) {
        CHECK(err.code != ERR_NONE && err.what[0] != '\0');
        return 0;
    }
    CHECK(id.text.p == text.p && id.text.n == size);
    CHECK(id.trust_domain.p == text.p + 9);
    CHECK(id.trust_domain.p + id.trust_domain.n == id.path.p || id.path.n == 0);
    CHECK(9 + id.trust_domain.n + id.path.n == size);
    CHECK(spiffe_trust_domain_ok(id.trust_domain) && spiffe_id_member_of(&id, id.trust_domain));
    CHECK(spiffe_id_parse(id.text, &again, NULL) == 0 && str_eq(again.path, id.path));
    return 0;
}
