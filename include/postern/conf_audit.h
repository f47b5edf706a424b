/* conf: the section `audit` of a Proxy or Gateway file; docs/audit.md. */
#ifndef POSTERN_CONF_AUDIT_H
#define POSTERN_CONF_AUDIT_H

#include <stdbool.h>
#include <stdint.h>

enum conf_audit_chain { CONF_AUDIT_CHAIN_OFF, CONF_AUDIT_CHAIN_ON };
enum conf_audit_to { CONF_AUDIT_STDOUT, CONF_AUDIT_FILE, CONF_AUDIT_UNIX };

struct conf_audit {
    bool configured; /* the file has the section; else the rest counts for nothing */
    enum conf_audit_to to;
    char *path;        /* of the file or socket; NULL: stdout */
    uint64_t max_size; /* bytes of one file */
    uint32_t keep;     /* files, the one that is written included */
    char *allows;      /* as written */
    uint32_t sample;   /* one of so many allows; 0: none */
    enum conf_audit_chain chain;
};

#endif
