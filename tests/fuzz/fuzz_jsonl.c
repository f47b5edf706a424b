/*
 * A line of our own files. Property: what is read and written again is the same line, and every
 * getter stays inside what the parser has seen.
 */
#include <postern/jsonl.h>

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok)
{
    if (!ok) {
        abort();
    }
}

/* Word by word as it stands: strings are compared without their escapes. */
static void again(const struct jsonl *l, const struct jsonl_field *f)
{
    static char text[70000], space[500000];
    char key[512];
    struct jsonl_writer w;
    struct jsonl second;
    uint8_t bytes[64];
    size_t n = 0;
    uint64_t u = 0;
    int64_t i = 0;

    if (f->key.n >= sizeof(key)) {
        return;
    }
    memcpy(key, f->key.p, f->key.n);
    key[f->key.n] = '\0';
    require(jsonl_find(l, key) == f);
    (void)jsonl_get_hex(l, key, bytes, sizeof(bytes));
    (void)jsonl_get_base64(l, key, bytes, sizeof(bytes), &n);
    jsonl_begin(&w, space, sizeof(space));
    if (jsonl_get_text(l, key, text, sizeof(text))) {
        static char second_text[70000];

        jsonl_put_text(&w, key, str_of(text), sizeof(text));
        require(jsonl_end(&w) && jsonl_parse((struct str){w.text, w.len}, &second) &&
                second.n == 1 && jsonl_get_text(&second, key, second_text, sizeof(second_text)) &&
                str_eq(str_of(text), str_of(second_text)));
    } else if (jsonl_get_uint(l, key, &u)) {
        jsonl_put_uint(&w, key, u);
        require(jsonl_end(&w) && jsonl_parse((struct str){w.text, w.len}, &second) &&
                str_eq(second.fields[0].value, f->value));
    } else if (jsonl_get_int(l, key, &i)) {
        jsonl_put_int(&w, key, i);
        require(jsonl_end(&w) && jsonl_parse((struct str){w.text, w.len}, &second));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct jsonl l;

    if (size > 65536 || !jsonl_parse((struct str){(const char *)data, size}, &l)) {
        return 0;
    }
    require(l.n > 0 && l.n <= JSONL_FIELDS_MAX && l.fields[0].at == 0);
    for (size_t i = 0; i < l.n; i++) {
        again(&l, &l.fields[i]);
    }
    return 0;
}
