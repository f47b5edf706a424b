/* Keys in tokens: a helper for each, started before this process gives up starting programs. */
#include "proxy_priv.h"

#include <postern/mem.h>
#include <postern/token_key.h>
#include <stdlib.h>
#include <string.h>

struct token {
    struct proxy_token *all;
    char *module, *label, *key, *pin_file; /* owned */
    struct token_key *helper;
    struct token *next;
};

struct proxy_token {
    struct away_keys *keys;
    struct token *first;
};

static EVP_PKEY *get_key(void *arg, EVP_PKEY *public_key, struct err *err)
{
    struct token *t = (struct token *)arg;
    return token_key_get(t->helper, t->all->keys, public_key, err);
}

/* systemd.exec(5), "Credentials". */
static int pin_path(const struct conf_token *c, char **ret, struct err *err)
{
    const char *dir = secure_getenv("CREDENTIALS_DIRECTORY");
    if (c->pin_file != NULL) {
        *ret = mem_must_strdup(c->pin_file);
        return 0;
    }
    if (dir == NULL || dir[0] != '/') {
        err_set(err, ERR_CONFIG, "there is no credential '%s': CREDENTIALS_DIRECTORY is not set",
                c->pin_credential);
        return err_advise(err, "give the unit LoadCredential= or LoadCredentialEncrypted= with "
                               "this name, or use pin_file");
    }
    *ret = mem_must_printf("%s/%s", dir, c->pin_credential);
    return 0;
}

static struct token *find(const struct proxy_token *all, const struct conf_token *c,
                          const char *pin_file)
{
    for (struct token *t = all->first; t != NULL; t = t->next) {
        if (strcmp(t->module, c->module) == 0 && strcmp(t->label, c->label) == 0 &&
            strcmp(t->key, c->key) == 0 && strcmp(t->pin_file, pin_file) == 0) {
            return t;
        }
    }
    return NULL;
}

/* NULL-terminated; the array is the caller's. */
static const char **words(const struct conf_strings *list)
{
    const char **w = (const char **)mem_must_calloc(list->n + 1, sizeof(*w));
    for (size_t i = 0; i < list->n; i++) {
        w[i] = list->items[i];
    }
    return w;
}

static struct token *start(struct proxy_token *all, const struct conf_token *c,
                           const char *pin_file, struct err *err)
{
    const char **paths = words(&c->paths);
    const char **env = words(&c->environment);
    const struct token_key_spec spec = {.module = c->module,
                                        .label = c->label,
                                        .key = c->key,
                                        .pin_file = pin_file,
                                        .paths = paths,
                                        .env = env};
    struct token_key *helper = token_key_start(&spec, err);
    free(paths);
    free(env);
    if (helper == NULL) {
        return NULL;
    }
    struct token *t = mem_must_new(struct token);
    *t = (struct token){.all = all,
                        .module = mem_must_strdup(c->module),
                        .label = mem_must_strdup(c->label),
                        .key = mem_must_strdup(c->key),
                        .pin_file = mem_must_strdup(pin_file),
                        .helper = helper,
                        .next = all->first};
    all->first = t;
    return t;
}

static int ready(struct proxy *p, struct err *err)
{
    if (p->tokens != NULL) {
        return 0;
    }
    struct away_keys *keys = away_keys_new(err);
    if (keys == NULL) {
        return -1;
    }
    p->tokens = mem_must_new(struct proxy_token);
    p->tokens->keys = keys;
    return 0;
}

int proxy_token_away(struct proxy *p, const struct conf_credential *c, struct credential_away *ret,
                     struct err *err)
{
    mem_autofree char *pin_file = NULL;
    if (pin_path(&c->token, &pin_file, err) == -1 || ready(p, err) == -1) {
        return -1;
    }
    POSTERN_ASSERT(pin_file != NULL && p->tokens != NULL);
    struct token *t = find(p->tokens, &c->token, pin_file);
    if (t == NULL && hardening_entered(p->hardening)) {
        err_set(err, ERR_CONFIG, "a token cannot be added while running");
        return err_advise(err, "restart the gateway: it has given up starting programs");
    }
    t = t != NULL ? t : start(p->tokens, &c->token, pin_file, err);
    if (t == NULL) {
        return -1;
    }
    *ret = (struct credential_away){.key = get_key, .arg = t};
    return 0;
}

void proxy_token_stop(struct proxy *p)
{
    if (p->tokens == NULL) {
        return;
    }
    for (struct token *t = p->tokens->first, *next; t != NULL; t = next) {
        next = t->next;
        token_key_unref(t->helper);
        free(t->module);
        free(t->label);
        free(t->key);
        free(t->pin_file);
        free(t);
    }
    away_keys_free(p->tokens->keys);
    free(p->tokens);
    p->tokens = NULL;
}
