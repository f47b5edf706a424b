/* What token.c and keys.c share of the module. */
#ifndef POSTERN_SIGNER_TOKEN_PRIV_H
#define POSTERN_SIGNER_TOKEN_PRIV_H

#include "signer_priv.h"
#include <p11-kit/pkcs11.h>

struct signer_token {
    struct signer_token_name name; /* lent */
    void *module;                  /* never closed: it ends with the process */
    CK_FUNCTION_LIST *fn;
    CK_SESSION_HANDLE session;
};

/* "WHAT: CKR_...", with advice where there is one. */
int signer_token_failed(const struct signer_token *t, const char *what, CK_RV rv, struct err *err);

#endif
