/*
 * A line of a journal, as verify and show read it. Property: what is read has its four first fields
 * in their places, and a number and a hash that are in the line.
 */
#include <postern/journal.h>

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok)
{
    if (!ok) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct journal_line l;
    struct str line = {(const char *)data, size};
    uint8_t hash[JOURNAL_HASH_SIZE], again[JOURNAL_HASH_SIZE];
    uint64_t n;

    if (journal_file_number(line, &n)) {
        char name[32];

        journal_file_name(n, name, sizeof(name));
        require(n > 0 && str_eq(line, str_of(name)));
    }
    journal_hash(line, hash);
    if (!journal_line_parse(line, &l)) {
        return 0;
    }
    require(size < JOURNAL_LINE_MAX && l.seq > 0 && l.fields.n >= 4);
    require(jsonl_get_uint(&l.fields, "seq", &n) && n == l.seq);
    require(jsonl_get_hex(&l.fields, "prev", again, sizeof(again)) &&
            memcmp(again, l.prev, sizeof(again)) == 0);
    require(l.event.p >= line.p && l.event.p + l.event.n <= line.p + line.n);
    return 0;
}
