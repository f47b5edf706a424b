/* The key at rest: the passphrases that the configuration names, and what they open. They are wiped
 * as soon as the state is open; what stays is the key that was made of the one in use. */
#include "keeper_priv.h"

#include <string.h>
#include <unistd.h>

void keeper_rest_deinit(struct keeper_rest *r)
{
    mem_secret_free(r->passphrase);
    mem_secret_free(r->old_passphrase);
    *r = (struct keeper_rest){.passphrase = NULL};
}

int keeper_on_key_source(struct keeper *k, const struct agent_msg_key_source *msg, int fd,
                         struct err *err)
{
    char **text = msg->old ? &k->rest.old_passphrase : &k->rest.passphrase;
    size_t *len = msg->old ? &k->rest.old_len : &k->rest.len;
    const char *name = msg->old ? "the old passphrase's file" : "the passphrase's file";
    uint8_t *data = NULL;
    int r = -1;

    if (k->started || *text != NULL) {
        err_set(err, ERR_PROTOCOL, "a passphrase came out of order");
    } else {
        r = keeper_file_read(fd, name, msg->owner_uid, true, KEEPER_PASSPHRASE_MAX + 1, &data, len,
                             err);
    }
    close(fd);
    if (r == -1 && err->code == ERR_CONFIG) {
        err_advise(err, "give it mode 0600, the agent's own user, and 1 to %d bytes",
                   KEEPER_PASSPHRASE_MAX);
    }
    if (r == -1) {
        return err_where(err, msg->old ? "ca.key_at_rest.old_passphrase_file" : "ca.key_at_rest");
    }
    *text = (char *)data;
    if (data[*len - 1] == '\n') {
        (*len)--;
    }
    return 0;
}

static int derive(const char *passphrase, size_t len, const uint8_t *salt, struct keeper_seal *ret,
                  struct err *err)
{
    return keeper_seal_derive((struct str){passphrase, len}, salt, ret, err);
}

int keeper_rest_begin(struct keeper *k, struct err *err)
{
    int r = 0;

    if (k->rest.passphrase != NULL) {
        keeper_seal_deinit(&k->seal);
        r = derive(k->rest.passphrase, k->rest.len, NULL, &k->seal, err);
    }
    keeper_rest_deinit(&k->rest);
    return r;
}

/* With the old passphrase, and sealed under the new one from now on. */
static int open_old(struct keeper *k, struct str file, const uint8_t *salt, uint8_t **ret,
                    size_t *ret_len, struct err *err)
{
    struct keeper_seal old = {.key = NULL};
    int r = derive(k->rest.old_passphrase, k->rest.old_len, salt, &old, err);

    if (r == 0) {
        r = keeper_seal_open(&old, file, ret, ret_len, err);
        keeper_seal_deinit(&old);
    }
    return r;
}

static int open_sealed(struct keeper *k, struct str file, const uint8_t *salt, uint8_t **ret,
                       size_t *ret_len, bool *ret_reseal, struct err *err)
{
    if (k->rest.passphrase == NULL) {
        err_set(err, ERR_CONFIG, "the state is sealed, and `ca.key_at_rest` names no passphrase");
        return err_advise(err, "name the one that it was sealed with: {passphrase_file: PATH} or "
                               "{credential: NAME}");
    }
    if (derive(k->rest.passphrase, k->rest.len, salt, &k->seal, err) == -1) {
        return -1;
    }
    if (keeper_seal_open(&k->seal, file, ret, ret_len, err) == 0) {
        return 0;
    }
    if (k->rest.old_passphrase == NULL || open_old(k, file, salt, ret, ret_len, err) == -1) {
        return -1;
    }
    *ret_reseal = true;
    return 0;
}

int keeper_rest_open(struct keeper *k, struct str file, uint8_t **ret, size_t *ret_len,
                     bool *ret_reseal, struct err *err)
{
    struct keeper_seal_head head;
    bool reseal = false;
    int r = keeper_seal_read_head(file, &head, err);

    if (r == 0 && head.sealed) {
        r = open_sealed(k, file, head.salt, ret, ret_len, &reseal, err);
    } else if (r == 0) {
        r = keeper_seal_open(NULL, file, ret, ret_len, err);
        reseal = k->rest.passphrase != NULL;
    }
    if (r == 0 && reseal) {
        r = keeper_rest_begin(k, err);
        if (r == -1) {
            *ret = mem_secret_free(*ret);
        }
    }
    keeper_rest_deinit(&k->rest);
    if (r == 0) {
        *ret_reseal = reseal;
    }
    return r;
}
