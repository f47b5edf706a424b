/* What the files of postern-token share. */
#ifndef POSTERN_SIGNER_TLS_PRIV_H
#define POSTERN_SIGNER_TLS_PRIV_H

#include "token_priv.h"
#include "token_wire.h"

struct token_process {
    struct signer_token_name name;
    const char *pin_file;
    const char *const *paths; /* NULL-terminated */
    struct signer_token *token;
    bool has_key; /* the one that was used last */
    CK_OBJECT_HANDLE key;
    uint32_t last_len;
    uint8_t last[TOKEN_PUBLIC_MAX];
};

/* --- tls_keys.c --- */
int token_sign(struct token_process *p, const struct token_question *q, struct token_answer *ret,
               struct err *err);

/* --- tls_privs.c --- */
/* Of the process that watches, and of the one that has the module. */
int token_confine_watcher(struct err *err);
int token_confine(const struct token_process *p, struct err *err);

#endif
