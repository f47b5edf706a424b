/* JSON from outside: bounded before the recursive parser sees it. */
#include "jwt_priv.h"

#include <jansson.h>
#include <postern/os.h>

void jwt_init(void)
{
    size_t seed = 0;

    os_random(&seed, sizeof(seed));
    json_object_seed(seed | 1); /* 0 would mean: read one from a file */
}

/* Brackets outside of texts; whether they match is the parser's business. */
static bool depth_ok(struct str text)
{
    bool in_text = false;
    int depth = 0;

    for (size_t i = 0; i < text.n; i++) {
        char c = text.p[i];

        if (in_text) {
            if (c == '\\') {
                i++;
            } else if (c == '"') {
                in_text = false;
            }
        } else if (c == '"') {
            in_text = true;
        } else if (c == '{' || c == '[') {
            if (++depth > JWT_DEPTH_MAX) {
                return false;
            }
        } else if (c == '}' || c == ']') {
            depth--;
        }
    }
    return true;
}

struct json_t *jwt_json_parse(struct str text, struct err *err)
{
    json_error_t why;
    json_t *root;

    if (!depth_ok(text)) {
        err_set(err, ERR_LIMIT, "JSON nested deeper than %d", JWT_DEPTH_MAX);
        return NULL;
    }
    root = json_loadb(text.p != NULL ? text.p : "", text.n, JSON_REJECT_DUPLICATES, &why);
    if (root == NULL) {
        err_set(err, ERR_PROTOCOL, "not sound JSON at byte %d", why.position);
        return NULL;
    }
    if (!json_is_object(root)) {
        json_decref(root);
        err_set(err, ERR_PROTOCOL, "not a JSON object");
        return NULL;
    }
    return root;
}
