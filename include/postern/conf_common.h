/* conf_common: pieces that the structs of several kinds of file have. See conf.h. */
#ifndef POSTERN_CONF_COMMON_H
#define POSTERN_CONF_COMMON_H

#include <postern/conf_lists.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/types.h>

struct conf_sockaddr {
    struct sockaddr_storage ss;
    socklen_t len; /* 0: not set */
};

enum conf_protocol { CONF_PROTOCOL_TCP, CONF_PROTOCOL_HTTP };

enum conf_take_over { CONF_TAKE_OVER_EXECUTABLE, CONF_TAKE_OVER_UID, CONF_TAKE_OVER_NOBODY };
struct conf_admin {
    char *socket; /* NULL: none */
    uid_t *allow_uids;
    size_t n_allow_uids;           /* default: root and the process's own uid */
    enum conf_take_over take_over; /* Proxy and Gateway: by whom */
    uint32_t denials;              /* Proxy and Gateway: kept by each worker */
};

enum conf_state_at_rest { CONF_STATE_PLAIN };
/* A PKCS#11 token that holds the root's key. */
struct conf_token {
    bool configured; /* the file has the key; else the rest counts for nothing */
    char *module, *label, *key;
    char *pin_file, *pin_credential; /* one of them is NULL */
    struct conf_strings paths, environment;
    enum conf_state_at_rest state; /* of what stays in the state file */
};

enum conf_access_log { CONF_ACCESS_ALL, CONF_ACCESS_DENIED };

#endif
