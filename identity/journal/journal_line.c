#include <postern/journal.h>

#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

void journal_hash(struct str line, uint8_t ret[JOURNAL_HASH_SIZE])
{
    unsigned n = JOURNAL_HASH_SIZE;

    POSTERN_ASSERT(EVP_Digest(line.p != NULL ? line.p : "", line.n, ret, &n, EVP_sha256(), NULL) ==
                       1 &&
                   n == JOURNAL_HASH_SIZE);
}

bool journal_line_parse(struct str line, struct journal_line *ret)
{
    static const char *const order[] = {"seq", "time", "prev", "event"};
    const struct jsonl *l = &ret->fields;

    if (line.n >= JOURNAL_LINE_MAX || !jsonl_parse(line, &ret->fields) || l->n < 4) {
        return false;
    }
    for (size_t i = 0; i < 4; i++) {
        if (!str_eq(l->fields[i].key, str_of(order[i]))) {
            return false;
        }
    }
    ret->event = l->fields[3].value;
    return jsonl_get_uint(l, "seq", &ret->seq) && ret->seq > 0 && l->fields[1].is_text &&
           jsonl_get_hex(l, "prev", ret->prev, sizeof(ret->prev)) && l->fields[3].is_text;
}

void journal_file_name(uint64_t n, char *ret, size_t size)
{
    (void)snprintf(ret, size, "%0*" PRIu64 ".jsonl", JOURNAL_FILE_DIGITS, n);
}

bool journal_file_number(struct str name, uint64_t *ret)
{
    char again[32];
    uint64_t n;

    if (name.n < JOURNAL_FILE_DIGITS + 6 ||
        !str_to_u64((struct str){name.p, name.n - 6}, 999999999999, &n)) {
        /* str_to_u64 takes leading zeros or not; the name made again decides */
        return false;
    }
    journal_file_name(n, again, sizeof(again));
    if (n == 0 || !str_eq(name, str_of(again))) {
        return false;
    }
    *ret = n;
    return true;
}
