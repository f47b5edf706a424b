/* What the files of the admin module share. */
#ifndef POSTERN_ADMIN_PRIV_H
#define POSTERN_ADMIN_PRIV_H

#include <postern/err.h>
#include <sys/un.h>

enum {
    ADMIN_CLIENTS_MAX = 32, /* of each listener */
    ADMIN_HEAD_MAX = 4096,
    ADMIN_DOCUMENT_MAX = 16 << 20,
    ADMIN_DEADLINE_MS = 5000,
};

/* Every refusal on the Unix socket begins so, and no document does. */
#define ADMIN_ERROR_PREFIX "{\"error\":\""

int admin_unix_address(const char *path, struct sockaddr_un *ret, struct err *err);

#endif
