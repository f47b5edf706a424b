/* role_control: how a command finds the control socket of the agent that it is about. */
#include "roles_priv.h"

#include <postern/agent_control.h>
#include <postern/conf.h>
#include <postern/mem.h>
#include <stdio.h>
#include <stdlib.h>

enum { ASK_MS = 60000 };

int role_control_path(const char *config, const char *control, char **ret)
{
    struct conf_agent *conf;

    if (control != NULL || config == NULL) {
        *ret = mem_must_strdup(control != NULL ? control : AGENT_CONTROL_DEFAULT);
        return 0;
    }
    conf = role_agent_config(config);
    if (conf == NULL) {
        return -1;
    }
    *ret = conf->control_socket != NULL
               ? mem_must_strdup(conf->control_socket)
               : mem_must_printf("%s/%s", conf->state_dir, AGENT_CONTROL_NAME);
    conf_agent_free(conf);
    return 0;
}

int role_state_path(const char *config, const char *name, char **ret)
{
    struct conf_agent *conf = role_agent_config(config);

    if (conf == NULL) {
        return -1;
    }
    *ret = mem_must_printf("%s/%s", conf->state_dir, name);
    conf_agent_free(conf);
    return 0;
}

int role_control_ask(const char *path, const struct agent_control_request *request, struct buf *out)
{
    struct err err = ERR_INIT;
    char text[1200];

    if (agent_control_ask(path, request, ASK_MS, out, &err) == -1) {
        fprintf(stderr, "postern: %s\n", err_text(&err, text, sizeof(text)));
        return err.code == ERR_USAGE ? 2 : 1;
    }
    return 0;
}
