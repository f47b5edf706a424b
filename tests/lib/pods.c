#include "pods.h"

#include <postern/manifest.h>
#include <postern/mem.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

void pod_on_tell(void *arg, enum inject_severity severity, const char *where, const char *what)
{
    struct pod_said *s = arg;
    bool refused = severity == INJECT_SAYS_REFUSED;
    s->n_refused += refused ? 1 : 0;
    s->n_told += refused ? 0 : 1;
    for (const char *c = where; *c != '\0'; c++) {
        assert_true((unsigned char)*c >= ' ' && *c != 0x7f);
    }
    for (const char *c = what; *c != '\0'; c++) {
        assert_true((unsigned char)*c >= ' ' && *c != 0x7f);
    }
    assert_true(buf_printf(&s->text, "%s %s: %s\n", refused ? "refused" : "told", where, what));
}

struct inject_options pod_options(void)
{
    struct inject_options o;
    inject_options_init(&o);
    o.image = "registry.example/postern:0.1";
    return o;
}

json_t *pod_tree(const char *yaml)
{
    struct err err = ERR_INIT;
    char text[1200];
    struct manifest *m = manifest_parse("f", str_of(yaml), &err);
    if (m == NULL) {
        fail_msg("%s\n%s", err_text(&err, text, sizeof(text)), yaml);
    }
    json_t *tree = json_incref(m->docs[0].tree);
    manifest_free(m);
    return tree;
}

json_t *pod_injected(const char *yaml, const struct inject_options *o)
{
    struct pod_said s = {.text = BUF_INIT(1 << 16)};
    struct inject_tell tell = {pod_on_tell, &s};
    json_t *tree = pod_tree(yaml);
    assert_int_equal(inject_document(tree, o, &tell), INJECT_CHANGED);
    buf_reset(&s.text);
    return tree;
}

const json_t *pod_find(const json_t *pod, const char *list, const char *name, size_t *ret_at)
{
    size_t i;
    json_t *e;
    json_array_foreach(json_object_get(json_object_get(pod, "spec"), list), i, e)
    {
        if (strcmp(json_string_value(json_object_get(e, "name")), name) == 0) {
            *ret_at = i;
            return e;
        }
    }
    return NULL;
}

json_t *pod_member(json_t *pod, const char *list, const char *name)
{
    size_t at;
    return (json_t *)(uintptr_t)pod_find(pod, list, name, &at);
}
