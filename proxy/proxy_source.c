/* Where a proxy's configuration stands: in a file, or whole in a variable of its environment, where
 * there is no file to write (an injected sidecar). */
#include "proxy_priv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int proxy_read_conf(const struct proxy *p, struct conf_diag *diag, struct conf_proxy **ret)
{
    if (p->env == NULL) {
        return p->role->load(p->path, diag, ret);
    }
    /* What the kernel gave this process at its start: nobody else can change it. */
    const char *text = secure_getenv(p->env);
    char name[80];
    snprintf(name, sizeof(name), "$%.70s", p->env);
    if (p->role->parse(name, text != NULL ? text : "", text != NULL ? strlen(text) : 0, diag,
                       ret) == -1) {
        return -1;
    }
    free((*ret)->path); /* there is no file, and so no directory that may be read */
    (*ret)->path = NULL;
    return 0;
}
