/* Injection, whole: whatever a manifest holds, a document is changed as a whole or not at all, a
 * second time changes nothing, and taking it out leaves no part of ours. */
#include <postern/inject.h>
#include <postern/manifest.h>

#include <assert.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void on_tell(void *arg, enum inject_severity severity, const char *where, const char *what)
{
    (void)arg;
    (void)severity;
    for (const char *c = where; *c != '\0'; c++) {
        assert((unsigned char)*c >= ' ' && *c != 0x7f);
    }
    for (const char *c = what; *c != '\0'; c++) {
        assert((unsigned char)*c >= ' ' && *c != 0x7f);
    }
}

static const struct inject_tell tell = {.tell = on_tell};

static void check(const json_t *given, const struct inject_options *o)
{
    json_t *tree = json_deep_copy(given);
    enum inject_outcome r = inject_document(tree, o, &tell);
    assert((r == INJECT_CHANGED) != json_equal(tree, given));
    if (r == INJECT_CHANGED) {
        char *once = json_dumps(tree, JSON_PRESERVE_ORDER | JSON_ENCODE_ANY);
        r = inject_document(tree, o, &tell);
        assert(r == INJECT_UNCHANGED || r == INJECT_OPTED_OUT);
        char *again = json_dumps(tree, JSON_PRESERVE_ORDER | JSON_ENCODE_ANY);
        assert(once != NULL && again != NULL && strcmp(once, again) == 0);
        free(again);
        free(once);
        if (r == INJECT_UNCHANGED && uninject_document(tree, &tell) == INJECT_CHANGED) {
            r = uninject_document(tree, &tell);
            assert(r == INJECT_UNCHANGED || r == INJECT_REFUSED);
        }
    }
    json_decref(tree);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct inject_options o;
    inject_options_init(&o);
    o.image = "i";
    if (size > 32 * 1024) {
        return 0;
    }
    struct manifest *m = manifest_parse("f", (struct str){(const char *)data, size}, NULL);
    for (size_t i = 0; m != NULL && i < m->n; i++) {
        o.classic = o.no_intercept = false;
        check(m->docs[i].tree, &o);
        o.classic = true;
        check(m->docs[i].tree, &o);
        o.no_intercept = true;
        check(m->docs[i].tree, &o);
    }
    manifest_free(m);
    return 0;
}
