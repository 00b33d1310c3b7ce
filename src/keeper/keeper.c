#include "keeper/keeper.h"
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
struct keeper { struct keeper_config c; int back; int front; pthread_t t; int stop; };
static int fwd(int a, int b)
{
	char buf[8192]; char cb[CMSG_SPACE(16*sizeof(int))];
	struct iovec iov = { buf, 12 };
	struct msghdr m = { .msg_iov=&iov, .msg_iovlen=1, .msg_control=cb, .msg_controllen=sizeof(cb) };
	ssize_t n = recvmsg(a, &m, 0);
	if (n <= 0) return -1;
	unsigned sz; memcpy(&sz, buf+8, 4); if (n<12) return -1; if (sz && recv(a, buf+12, sz, MSG_WAITALL) != (ssize_t)sz) return -1; iov.iov_len = 12+sz;
	if (!m.msg_controllen) m.msg_control = NULL;
	n = sendmsg(b, &m, MSG_NOSIGNAL);
	for (struct cmsghdr *c = m.msg_control ? CMSG_FIRSTHDR(&m) : NULL; c; c = CMSG_NXTHDR(&m,c)) {
		int nr = (c->cmsg_len-CMSG_LEN(0))/sizeof(int);
		for (int i=0;i<nr;i++) { int fd; memcpy(&fd, CMSG_DATA(c)+i*sizeof(int), sizeof(int)); close(fd);} }
	return n < 0 ? -1 : 0;
}
static void *mainloop(void *a)
{
	struct keeper *k = a;
	while (!k->stop) {
		struct pollfd p[3] = { {k->front<0?k->c.listen_fd:-1, POLLIN,0}, {k->front,POLLIN,0}, {k->back,POLLIN,0} };
		poll(p,3,100);
		if (p[0].revents) k->front = accept(k->c.listen_fd,NULL,NULL);
		if (p[1].revents && fwd(k->front,k->back)<0) { int reset[3]={0};(void)reset; close(k->front); k->front=-1; close(k->back); k->back=-1; }
		if (p[2].revents && k->back >= 0 && fwd(k->back,k->front)<0) { close(k->back); k->back=-1; k->c.on_backend_lost(k->c.ctx);}
	}
	return NULL;
}
int keeper_new(struct keeper **r, const struct keeper_config *c)
{
	struct keeper *k = calloc(1,sizeof(*k)); k->c=*c; k->back=k->front=-1;
	pthread_create(&k->t,NULL,mainloop,k); *r=k; return 0;
}
int keeper_set_backend(struct keeper *k, int s) { k->back = s; return 0; }
void keeper_free(struct keeper *k) { if (!k) return; k->stop=1; pthread_join(k->t,NULL); if(k->front>=0)close(k->front); if(k->back>=0)close(k->back); free(k); }
