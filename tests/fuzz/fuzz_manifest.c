/* Manifests: the documents' bytes are the text, without a gap; a tree that is written as YAML reads
 * as the same tree; and what that is written as is the same text. */
#include <postern/manifest.h>

#include <assert.h>
#include <math.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A real without a fraction is read as an integer. */
static bool same(const json_t *a, const json_t *b)
{
    const char *key;
    json_t *child;
    size_t i;
    if (json_is_number(a) && json_is_number(b)) {
        return json_number_value(a) == json_number_value(b);
    }
    if (json_is_object(a) && json_is_object(b)) {
        bool ok = json_object_size(a) == json_object_size(b);
        json_object_foreach((json_t *)(uintptr_t)a, key, child)
        {
            ok = ok && same(child, json_object_get(b, key));
        }
        return ok;
    }
    if (json_is_array(a) && json_is_array(b)) {
        bool ok = json_array_size(a) == json_array_size(b);
        json_array_foreach(a, i, child)
        {
            ok = ok && same(child, json_array_get(b, i));
        }
        return ok;
    }
    return json_equal(a, b);
}

/* Keys that only JSON has: an empty text to them is an error in YAML. */
static bool writable(const json_t *t)
{
    const char *key;
    json_t *child;
    size_t i;
    bool ok = !json_is_real(t) || isfinite(json_real_value(t));
    json_object_foreach((json_t *)(uintptr_t)t, key, child)
    {
        ok = ok && strlen(key) <= MANIFEST_KEY_MAX && writable(child);
        for (const char *c = key; *c != '\0'; c++) {
            ok = ok && (unsigned char)*c >= ' ' && *c != 0x7f;
        }
    }
    json_array_foreach(t, i, child)
    {
        ok = ok && writable(child);
    }
    return ok;
}

static void check_tree(const json_t *tree)
{
    struct buf once = BUF_INIT(MANIFEST_TEXT_MAX), twice = BUF_INIT(MANIFEST_TEXT_MAX);
    if (writable(tree) && manifest_write_yaml(tree, &once)) {
        struct manifest *m = manifest_parse("f", buf_str(&once), NULL);
        assert(m != NULL && m->n == 1 && same(tree, m->docs[0].tree));
        assert(manifest_write_yaml(m->docs[0].tree, &twice));
        assert(str_eq(buf_str(&once), buf_str(&twice)));
        manifest_free(m);
    }
    buf_reset(&once);
    buf_reset(&twice);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err err = ERR_INIT;
    struct str text = {(const char *)data, size};
    if (size > 64 * 1024) {
        return 0;
    }
    struct manifest *m = manifest_parse("f", text, &err);
    if (m == NULL) {
        assert(err.code == ERR_CONFIG || err.code == ERR_LIMIT);
        return 0;
    }
    size_t at = 0;
    for (size_t i = 0; i < m->n; i++) {
        const struct manifest_doc *d = &m->docs[i];
        assert(d->header_len <= d->bytes.n);
        assert(d->bytes.n == 0 || d->bytes.p == text.p + at);
        at += d->bytes.n;
        check_tree(d->tree);
    }
    assert(at == size);
    manifest_free(m);
    return 0;
}
