/* What a journal says about an image: which certificates callers that ran it still have. */
#include <postern/journal.h>

#include <postern/mem.h>
#include <postern/os.h>
#include <stdlib.h>
#include <string.h>

/* In the spelling of <postern/quarantine.h>: whole bytes, no leading zero byte. */
static struct str plain(struct str serial)
{
    while (serial.n > 2 && serial.p[0] == '0' && serial.p[1] == '0') {
        serial = (struct str){serial.p + 2, serial.n - 2};
    }
    return serial;
}

static bool take_line(struct str line, const char *digest, const char *now, struct buf *out,
                      size_t *n)
{
    struct journal_line l;
    const struct jsonl_field *serial;
    char until[32];

    if (!journal_line_parse(line, &l) || !str_eq(l.event, STR_LIT("issued")) ||
        !jsonl_is(&l.fields, "image_digest", digest) ||
        !jsonl_get_text(&l.fields, "not_after", until, sizeof(until)) || strcmp(until, now) <= 0) {
        return true;
    }
    serial = jsonl_find(&l.fields, "serial");
    if (serial == NULL || !serial->is_text) { /* a token: nobody asks for those again */
        return true;
    }
    ++*n;
    return buf_append_str(out, plain(serial->value)) && buf_append(out, ",", 1);
}

static bool take_file(const struct journal_file *f, const char *digest, const char *now,
                      struct buf *out, size_t *n)
{
    const char *at = f->data, *end = f->data + f->len;

    while (at < end) {
        /* Most lines are about others: only one that has the digest is read. */
        const char *hit = memmem(at, (size_t)(end - at), digest, strlen(digest));
        const char *from, *to;

        if (hit == NULL) {
            return true;
        }
        from = memrchr(at, '\n', (size_t)(hit - at));
        from = from != NULL ? from + 1 : at;
        to = memchr(hit, '\n', (size_t)(end - hit));
        if (to == NULL) {
            return true;
        }
        if (!take_line((struct str){from, (size_t)(to - from)}, digest, now, out, n)) {
            return false;
        }
        at = to + 1;
    }
    return true;
}

int journal_serials_of_image(const char *dir, const char *digest, int64_t now_s, struct buf *out,
                             size_t *ret_n, struct err *err)
{
    mem_autofree uint64_t *numbers = NULL;
    size_t n_files = 0, n = 0;
    char now[32];

    os_time_text(now_s, now, sizeof(now));
    if (journal_list(dir, &numbers, &n_files, err) == -1) {
        return -1;
    }
    for (size_t i = 0; i < n_files; i++) {
        struct journal_file f;
        bool ok;

        if (journal_file_open(dir, numbers[i], &f, err) == -1) {
            return -1;
        }
        ok = take_file(&f, digest, now, out, &n);
        journal_file_close(&f);
        if (!ok) {
            return err_set(err, ERR_LIMIT, "more certificates than can be quarantined");
        }
    }
    *ret_n = n;
    return 0;
}
