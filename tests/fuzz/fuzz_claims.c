/*
 * Properties: what a token says is a list within its bounds, or refused; each name leads back to a
 * value of the JSON it came from, and to that one only.
 */
#include "claims_priv.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "jwt_priv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/* The first key of a name, and what is behind its dot. */
static struct str first_key(struct str name, char *room, size_t *ret_n)
{
    size_t i = 0, n = 0;
    while (i < name.n && name.p[i] != '.') {
        i += name.p[i] == '\\' ? 1 : 0;
        CHECK(i < name.n && n < CLAIMS_BYTES_MAX);
        room[n++] = name.p[i++];
    }
    *ret_n = n;
    room[n] = '\0';
    return i < name.n ? (struct str){name.p + i + 1, name.n - i - 1} : STR_NONE;
}

static const json_t *value_of(const json_t *root, struct str name)
{
    static char room[CLAIMS_BYTES_MAX + 1];
    size_t depth = 0;
    while (name.n > 0) {
        size_t n = 0;
        name = first_key(name, room, &n);
        CHECK(n > 0 && ++depth <= CLAIMS_DEPTH_MAX);
        root = json_object_get(root, room);
        CHECK(root != NULL);
    }
    return root;
}

static bool says(const json_t *v, struct str value)
{
    if (json_is_array(v)) {
        for (size_t i = 0; i < json_array_size(v); i++) {
            const json_t *e = json_array_get(v, i);
            if (!json_is_array(e) && !json_is_object(e) && says(e, value)) {
                return true;
            }
        }
        return false;
    }
    if (json_is_string(v)) {
        struct str text = {json_string_value(v), json_string_length(v)};
        return str_eq(text, value) || memmem(text.p, text.n, value.p, value.n) != NULL;
    }
    return (json_is_integer(v) || json_is_boolean(v)) && value.n > 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct claims *c = NULL;
    size_t bytes = 0;
    json_t *root = jwt_json_parse((struct str){(const char *)data, size}, NULL);
    if (root == NULL) {
        return 0;
    }
    if (claims_new(root, 1, &c, NULL) == 0) {
        const struct policy_claims *list = claims_list(c);
        CHECK(list->n <= CLAIMS_VALUES_MAX);
        for (size_t i = 0; i < list->n; i++) {
            bytes += list->items[i].name.n + list->items[i].value.n;
            CHECK(says(value_of(root, list->items[i].name), list->items[i].value));
        }
        CHECK(bytes <= CLAIMS_BYTES_MAX);
    }
    claims_unref(c);
    json_decref(root);
    return 0;
}
