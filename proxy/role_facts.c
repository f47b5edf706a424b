/* role_facts: what a process looks like to an agent, gathered for a person. */
#include "role_facts.h"

#include <postern/mem.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { PIECE = 1 << 20, KUBELET_MS = 10000 };
static const uint64_t EXECUTABLE_MAX = UINT64_C(64) << 20;

static void read_digest(struct role_facts *f, uint64_t max_bytes)
{
    struct attest_sha256 s;
    int r = 1;
    int fd = attest_exe_open(&f->process, &f->facts, max_bytes, &f->no_sha256);

    if (fd == -1) {
        return;
    }
    attest_sha256_init(&s);
    while (r == 1) {
        r = attest_exe_hash(fd, &f->facts.exe, &s, PIECE, f->sha256);
    }
    close(fd);
    f->has_sha256 = r == 0;
    f->no_sha256 = "its executable cannot be read";
}

static char *text_or_empty(char *text)
{
    static char empty[1];

    return text != NULL ? text : empty;
}

static void take_container(struct role_facts *f, const struct kubelet_container *c)
{
    f->container = (struct keeper_container){.id = c->id,
                                             .name = text_or_empty(c->name),
                                             .image = text_or_empty(c->image),
                                             .image_id = text_or_empty(c->image_id),
                                             .digest = text_or_empty(c->digest)};
    f->keeper.container = &f->container;
}

static void take_pod(struct role_facts *f)
{
    const struct kubelet_pod *p = kubelet_pods_find(f->pods, str_of(f->facts.cgroup.pod_uid));
    const struct kubelet_container *c;

    if (p == NULL) {
        err_set(&f->no_pods, ERR_UNAVAILABLE, "the kubelet knows no pod %s",
                f->facts.cgroup.pod_uid);
        return;
    }
    f->pod = (struct keeper_pod){.uid = p->uid,
                                 .ns = text_or_empty(p->namespace),
                                 .sa = text_or_empty(p->service_account),
                                 .name = text_or_empty(p->name),
                                 .node = text_or_empty(p->node),
                                 .labels = f->labels,
                                 .n_labels = p->n_labels};
    for (size_t i = 0; i < p->n_labels; i++) {
        f->labels[i] = (struct keeper_label){p->labels[i].key, p->labels[i].value};
    }
    f->keeper.pod = &f->pod;
    c = kubelet_pod_find(p, str_of(f->facts.cgroup.container_id));
    if (c != NULL) {
        take_container(f, c);
    }
}

static void ask_kubelet(struct role_facts *f, const struct conf_kubernetes *k)
{
    struct kubelet_source source = {.address = k->address.ss,
                                    .address_len = k->address.len,
                                    .ca_file = k->ca_file,
                                    .cert_file = k->cert_file,
                                    .key_file = k->key_file,
                                    .token_file = k->token_file,
                                    .server_name = k->server_name,
                                    .insecure = k->insecure,
                                    .plaintext = k->plaintext,
                                    .timeout_ms = KUBELET_MS};

    if (kubelet_fetch(&source, &f->pods, &f->no_pods) == 0) {
        take_pod(f);
    }
}

static const char *or_null(const char *text)
{
    return text[0] != 0 ? text : NULL;
}

int role_facts_gather(struct role_facts *f, pid_t pid, const struct conf_agent *conf,
                      bool want_digest, struct err *err)
{
    const struct attest_facts *a = &f->facts;
    const char *why = "";

    *f = (struct role_facts){.process = {.pidfd = -1, .dir_fd = -1}, .no_pods = ERR_INIT};
    if (attest_view_init(&f->view, err) == -1) {
        return -1;
    }
    if (attest_process_open_pid(&f->view, pid, &f->process, &f->facts, &why) != AGENT_ATTEST_OK) {
        err_set(err, ERR_UNAVAILABLE, "process %d: %s", (int)pid, why);
        return err_advise(err, geteuid() == 0 ? "ask while it runs" : "ask as root");
    }
    if (want_digest) {
        read_digest(f, conf != NULL ? conf->executable_max : EXECUTABLE_MAX);
    }
    f->keeper = (struct keeper_facts){.uid = a->uid,
                                      .gid = a->gid,
                                      .groups = a->groups.gids,
                                      .n_groups = a->groups.n,
                                      .own_view = a->own_view,
                                      .contained = a->contained,
                                      .path = a->path_len > 0 ? a->path : NULL,
                                      .sha256 = f->has_sha256 ? f->sha256 : NULL,
                                      .unit = or_null(a->cgroup.unit),
                                      .runtime = a->cgroup.runtime,
                                      .container_id = or_null(a->cgroup.container_id),
                                      .pod_uid = or_null(a->cgroup.pod_uid)};
    if (conf != NULL && conf->kubernetes.configured && f->keeper.pod_uid != NULL) {
        ask_kubelet(f, &conf->kubernetes);
    }
    return 0;
}

void role_facts_deinit(struct role_facts *f)
{
    attest_process_close(&f->process);
    attest_view_deinit(&f->view);
    kubelet_pods_free(f->pods);
}

pid_t role_facts_pid(const char *text)
{
    uint64_t pid;

    if (!str_to_u64(str_of(text), INT32_MAX, &pid) || pid == 0) {
        fprintf(stderr, "postern: '%s' is no process number\n", text);
        return -1;
    }
    return (pid_t)pid;
}
