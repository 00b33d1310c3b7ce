#ifndef FUSEWIRE_KEEPER_KEEPER_H
#define FUSEWIRE_KEEPER_KEEPER_H
#include "base/compiler.h"
struct keeper;
struct keeper_config { int listen_fd; bool inband_notifications; void (*on_backend_lost)(void *ctx); void *ctx; };
int must_check keeper_new(struct keeper **ret, const struct keeper_config *config);
int must_check keeper_set_backend(struct keeper *k, int sock);
void keeper_free(struct keeper *k);
#endif
