/*
 * What the resolver's helper reads: a name server's answer, and a hosts file. Nothing is taken from
 * a message that is cut short; what is taken stands in it; a bound on addresses holds.
 */
#include "resolver_priv.h"

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(cond)                                                                                 \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond);                             \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

static void check_dns(const uint8_t *data, size_t size, unsigned type)
{
    struct addresses all = {.n = 0, .ttl_s = UINT32_MAX};
    bool ok = dns_read_answer(data, size, type, &all);
    MUST(all.n <= RESOLVE_ADDRS_MAX && (ok || all.n == 0));
    for (size_t i = 0; i < all.n; i++) {
        size_t n = all.list[i].family == 4 ? 4 : 16;
        MUST(all.list[i].family == (type == DNS_TYPE_A ? 4 : 6));
        MUST(memmem(data, size, all.list[i].bytes, n) != NULL);
    }
    for (size_t n = 0; ok && n < size && n < 600; n++) {
        struct addresses part = {.n = 0, .ttl_s = UINT32_MAX};
        if (dns_read_answer(data, n, type, &part)) {
            MUST(part.n == all.n && part.ttl_s == all.ttl_s); /* bytes behind it do not count */
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    check_dns(data, size, DNS_TYPE_A);
    check_dns(data, size, DNS_TYPE_AAAA);
    struct addresses found = {.n = 0, .ttl_s = UINT32_MAX};
    struct str text = {(const char *)data, size};
    bool hit = hosts_find(text, STR_LIT("db.example"), &found);
    MUST(hit == (found.n > 0) && found.n <= RESOLVE_ADDRS_MAX);
    return 0;
}
