/*
 * The kubelet's list of pods: whatever is taken from it has Kubernetes' forms, so that it can stand
 * in messages and in a path; lookups find exactly what is there.
 */
#include <postern/kubelet.h>

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(cond)                                                                                 \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond);                             \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

static void check_text(const char *s, size_t max)
{
    MUST(s == NULL || (strlen(s) > 0 && strlen(s) <= max));
    MUST(s == NULL || strpbrk(s, "/ \n\"%{}") == NULL);
}

static void check_pod(const struct kubelet_pod *p)
{
    size_t text = 0;

    MUST(strlen(p->uid) == 32 || strlen(p->uid) == 36);
    MUST(strspn(p->uid, "0123456789abcdef-") == strlen(p->uid));
    MUST(p->namespace != NULL && p->name != NULL);
    check_text(p->namespace, KUBELET_NAME_MAX);
    check_text(p->name, KUBELET_NAME_MAX);
    check_text(p->service_account, KUBELET_NAME_MAX);
    check_text(p->node, KUBELET_NAME_MAX);
    MUST(p->n_labels <= KUBELET_LABELS_MAX && p->n_containers <= KUBELET_CONTAINERS_MAX);
    for (size_t i = 0; i < p->n_labels; i++) {
        MUST(strpbrk(p->labels[i].key, "=\n ") == NULL);
        MUST(strpbrk(p->labels[i].value, "/=\n ") == NULL);
        text += strlen(p->labels[i].key) + strlen(p->labels[i].value) + 2;
    }
    MUST(text <= KUBELET_LABELS_TEXT_MAX);
    for (size_t i = 0; i < p->n_containers; i++) {
        const struct kubelet_container *c = &p->containers[i];

        MUST(strlen(c->id) == KUBELET_CONTAINER_ID_MAX);
        MUST(strspn(c->id, "0123456789abcdef") == KUBELET_CONTAINER_ID_MAX);
        MUST(c->name != NULL);
        check_text(c->name, KUBELET_CONTAINER_NAME_MAX);
        MUST(c->image == NULL || (strlen(c->image) <= KUBELET_IMAGE_MAX && c->image[0] != '\0'));
        MUST(c->digest == NULL ||
             str_eq(kubelet_image_digest(str_of(c->digest)), str_of(c->digest)));
        MUST(kubelet_pod_find(p, str_of(c->id)) != NULL);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct kubelet_pods *pods = NULL;
    struct err err = ERR_INIT;

    if (kubelet_pods_parse((const char *)data, size, &pods, &err) == -1) {
        MUST(pods == NULL && err.code != ERR_NONE);
        return 0;
    }
    MUST(pods->n <= KUBELET_PODS_MAX);
    MUST((pods->n_left_out > 0) == (pods->left_out.code != ERR_NONE));
    for (size_t i = 0; i < pods->n; i++) {
        check_pod(&pods->items[i]);
        MUST(kubelet_pods_find(pods, str_of(pods->items[i].uid)) == &pods->items[i]);
    }
    kubelet_pods_free(pods);
    return 0;
}
