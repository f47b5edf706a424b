/* Answers of an agent, as a token and as key sets: refused, or what was asked for. The first byte
 * says what is wanted. */
#include "rotate_priv.h"

#include <assert.h>
#include <postern/jwt.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void as_token(struct str message, bool of_web)
{
    char audience[] = "a";
    char *items[] = {audience};
    const struct conf_strings audiences = {items, 1};
    const int64_t now_s = 1767225600;
    struct rotate_token_text text = {0};
    struct err err = ERR_INIT;
    const char *wanted = of_web ? "spiffe://example.org/web" : NULL;
    if (rotate_read_token(message, wanted, &audiences, now_s, &text, &err) == -1) {
        assert(err.code != ERR_NONE && text.text == NULL);
        return;
    }
    struct jwt_token *token = NULL;
    assert(jwt_read(str_of(text.text), &token, NULL) == 0);
    assert(strcmp(token->spiffe_id, text.spiffe_id) == 0 && text.ends_s > now_s);
    assert(!of_web || strcmp(text.spiffe_id, wanted) == 0);
    jwt_token_free(token);
    rotate_token_text_reset(&text);
    assert(text.text == NULL);
}

static void as_key_sets(struct str message)
{
    struct jwt_key_sets sets = {0};
    struct err warning = ERR_INIT;
    struct err err = ERR_INIT;
    if (rotate_read_key_sets(message, &sets, &warning, &err) == -1) {
        assert(err.code == ERR_PROTOCOL && sets.items == NULL);
        return;
    }
    assert(sets.n > 0);
    for (size_t i = 0; i < sets.n; i++) {
        struct jwt_keys *keys = NULL;
        assert(spiffe_trust_domain_ok(sets.items[i].trust_domain));
        assert(jwt_keys_parse(sets.items[i].json, false, &keys, NULL) == 0);
        jwt_keys_free(keys);
        for (size_t k = 0; k < i; k++) { /* each trust domain once */
            assert(!str_eq(sets.items[k].trust_domain, sets.items[i].trust_domain));
        }
    }
    jwt_key_sets_reset(&sets);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 0) {
        struct str message = {(const char *)data + 1, size - 1};
        as_token(message, data[0] % 2 == 0);
        as_key_sets(message);
    }
    return 0;
}
