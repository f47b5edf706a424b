/* option_lists: ports, address blocks and users on a command line, each list sorted and without
 * overlap: nftables refuses elements that overlap, and a person may well name one twice. */
#include "options_priv.h"

#include <arpa/inet.h>
#include <postern/str.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static int parse_port(struct str text, uint16_t *ret)
{
    uint64_t v;
    if (!str_to_u64(text, 65535, &v) || v == 0) {
        return -1;
    }
    *ret = (uint16_t)v;
    return 0;
}

int option_port(const char *name, const char *arg, uint16_t *ret, struct err *err)
{
    if (parse_port(str_of(arg), ret) != 0) {
        err_set(err, ERR_USAGE, "--%s %s: not a port", name, arg);
        return err_expected(err, "a number from 1 to 65535");
    }
    return 0;
}

/* Cuts the next element of a list with commas; false: none is left. */
static bool next_element(struct str *rest, struct str *ret)
{
    if (rest->p == NULL) {
        return false;
    }
    const char *comma = memchr(rest->p, ',', rest->n);
    if (comma == NULL) {
        *ret = *rest;
        *rest = STR_NONE;
        return true;
    }
    *ret = (struct str){rest->p, (size_t)(comma - rest->p)};
    *rest = (struct str){comma + 1, rest->n - ret->n - 1};
    return true;
}

/* --- port ranges ------------------------------------------------------------------------------ */
static int compare_ranges(const void *pa, const void *pb)
{
    const struct intercept_range *a = pa;
    const struct intercept_range *b = pb;
    return a->first != b->first ? (a->first < b->first ? -1 : 1) : 0;
}

/* nftables refuses elements that overlap; a person may well name one twice. */
static size_t merge_ranges(struct intercept_range *list, size_t n)
{
    size_t out = 0;
    qsort(list, n, sizeof(*list), compare_ranges);
    for (size_t i = 0; i < n; i++) {
        if (out > 0 && list[i].first <= list[out - 1].last) {
            if (list[i].last > list[out - 1].last) {
                list[out - 1].last = list[i].last;
            }
        } else {
            list[out++] = list[i];
        }
    }
    return out;
}

int option_ports(const char *name, const char *arg, struct intercept_range *list, size_t *n,
                 struct err *err)
{
    struct str rest = str_of(arg);
    struct str e;
    while (next_element(&rest, &e)) {
        struct str last = e;
        const char *dash = memchr(e.p, '-', e.n);
        if (dash != NULL) {
            last = (struct str){dash + 1, e.n - (size_t)(dash - e.p) - 1};
            e.n = (size_t)(dash - e.p);
        }
        uint16_t from, to;
        if (parse_port(e, &from) != 0 || parse_port(last, &to) != 0 || from > to) {
            err_set(err, ERR_USAGE, "--%s %s: not a list of ports", name, arg);
            return err_expected(err, "ports and ranges with commas, such as 22,8000-8010");
        }
        if (*n == INTERCEPT_RANGES_MAX) {
            return err_set(err, ERR_USAGE, "--%s: more than %d elements", name,
                           INTERCEPT_RANGES_MAX);
        }
        list[(*n)++] = (struct intercept_range){from, to};
    }
    *n = merge_ranges(list, *n);
    return 0;
}

/* --- address blocks --------------------------------------------------------------------------- */
static int parse_block(struct str text, struct intercept_block *ret)
{
    char z[INET6_ADDRSTRLEN];
    struct intercept_block b = {0};
    const char *slash = memchr(text.p, '/', text.n);
    size_t n = slash != NULL ? (size_t)(slash - text.p) : text.n;
    if (n == 0 || n >= sizeof(z)) {
        return -1;
    }
    memcpy(z, text.p, n);
    z[n] = '\0';
    if (inet_pton(AF_INET, z, b.addr) == 1) {
        b.family = AF_INET;
    } else if (inet_pton(AF_INET6, z, b.addr) == 1) {
        b.family = AF_INET6;
    } else {
        return -1;
    }
    unsigned bits = b.family == AF_INET ? 32 : 128;
    uint64_t prefix = bits;
    if (slash != NULL && !str_to_u64((struct str){slash + 1, text.n - n - 1}, bits, &prefix)) {
        return -1;
    }
    b.prefix_len = (uint8_t)prefix;
    for (unsigned i = b.prefix_len; i < bits; i++) {
        if ((b.addr[i / 8] & (0x80u >> (i % 8))) != 0) {
            return -1; /* 10.0.0.1/8 could be meant in two ways */
        }
    }
    *ret = b;
    return 0;
}

static bool block_holds(const struct intercept_block *outer, const struct intercept_block *inner)
{
    if (outer->family != inner->family || outer->prefix_len > inner->prefix_len) {
        return false;
    }
    size_t whole = outer->prefix_len / 8;
    unsigned rest = outer->prefix_len % 8;
    uint8_t mask = (uint8_t)(0xff00u >> rest);
    return memcmp(outer->addr, inner->addr, whole) == 0 &&
           (rest == 0 || ((outer->addr[whole] ^ inner->addr[whole]) & mask) == 0);
}

static int compare_blocks(const void *pa, const void *pb)
{
    const struct intercept_block *a = pa;
    const struct intercept_block *b = pb;
    if (a->family != b->family) {
        return a->family < b->family ? -1 : 1;
    }
    int r = memcmp(a->addr, b->addr, sizeof(a->addr));
    return r != 0 ? r : (int)a->prefix_len - (int)b->prefix_len;
}

/* Sorted, a block comes right after those that hold it. */
static size_t merge_blocks(struct intercept_block *list, size_t n)
{
    size_t out = 0;
    qsort(list, n, sizeof(*list), compare_blocks);
    for (size_t i = 0; i < n; i++) {
        if (out == 0 || !block_holds(&list[out - 1], &list[i])) {
            list[out++] = list[i];
        }
    }
    return out;
}

int option_blocks(const char *name, const char *arg, struct intercept_block *list, size_t *n,
                  struct err *err)
{
    struct str rest = str_of(arg);
    struct str e;
    while (next_element(&rest, &e)) {
        if (*n == INTERCEPT_RANGES_MAX) {
            return err_set(err, ERR_USAGE, "--%s: more than %d elements", name,
                           INTERCEPT_RANGES_MAX);
        }
        if (parse_block(e, &list[*n]) != 0) {
            err_set(err, ERR_USAGE, "--%s %.*s: not an address block", name, STR_ARG(e));
            return err_expected(err, "blocks with commas, such as 10.0.0.0/8,fd00::/8, with no "
                                     "bit set beyond the prefix");
        }
        (*n)++;
    }
    *n = merge_blocks(list, *n);
    return 0;
}

bool intercept_excludes_canary(const struct intercept_options *o)
{
    const struct intercept_range *p = o->exclude_outbound;
    struct intercept_block canary[2];
    bool held = parse_block(STR_LIT(INTERCEPT_CANARY_4), &canary[0]) != 0 ||
                parse_block(STR_LIT(INTERCEPT_CANARY_6), &canary[1]) != 0;
    for (size_t i = 0; i < o->n_exclude_outbound; i++) {
        held = held || (p[i].first <= INTERCEPT_CANARY_PORT && p[i].last >= INTERCEPT_CANARY_PORT);
    }
    for (size_t i = 0; i < o->n_exclude_blocks; i++) {
        held = held || block_holds(&o->exclude_blocks[i], &canary[0]) ||
               block_holds(&o->exclude_blocks[i], &canary[1]);
    }
    return held;
}

/* --- users ------------------------------------------------------------------------------------ */
int option_uids(const char *arg, struct intercept_options *o, struct err *err)
{
    struct str rest = str_of(arg);
    struct str e;
    while (next_element(&rest, &e)) {
        struct str last = e;
        uint64_t v[2];
        const char *dash = memchr(e.p, '-', e.n);
        if (dash != NULL) {
            last = (struct str){dash + 1, e.n - (size_t)(dash - e.p) - 1};
            e.n = (size_t)(dash - e.p);
        }
        if (!str_to_u64(e, UINT32_MAX - 1, &v[0]) || !str_to_u64(last, UINT32_MAX - 1, &v[1]) ||
            v[0] > v[1]) {
            err_set(err, ERR_USAGE, "--exclude-uids %s: not a list of numeric uids", arg);
            return err_expected(err, "numbers and ranges with commas, such as 998,2000-2099");
        }
        if (o->n_exclude_uids == INTERCEPT_UIDS_MAX) {
            return err_set(err, ERR_USAGE, "--exclude-uids: more than %d elements",
                           INTERCEPT_UIDS_MAX);
        }
        o->exclude_uids[o->n_exclude_uids++] =
            (struct intercept_range){.first = (uid_t)v[0], .last = (uid_t)v[1]};
    }
    o->n_exclude_uids = merge_ranges(o->exclude_uids, o->n_exclude_uids);
    return 0;
}
