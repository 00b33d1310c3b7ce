/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The SIGBUS handler that puts zeros where a peer took shared memory away.
 *
 * Theory of operation
 *
 * The guarded ranges are in a fixed array. Writers hold a mutex; the handler, which may interrupt any
 * thread at any instruction, takes no lock. Each slot has a sequence number, odd while the slot changes.
 * The handler skips a slot whose number is odd or changed while it was read: a range that is in use, which
 * is the only kind that can fault by right, is not being added or removed at that moment.
 *
 * Pages that were replaced one by one are counted, per range and in all. Beyond SIGBUS_PIECES_MAX, or where the kernel has no
 * mapping left for one more, the whole range is replaced: its pieces become one again.
 *
 * Two threads that fault on the same page both replace it. The later replacement may drop what the first
 * thread wrote in between, which is lost anyway: nobody else sees the page any more.
 */
#include "mem/sigbus.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/**
 * struct guard - one guarded range.
 * @seq: even: the slot is stable
 * @start: first byte; 0 for a free slot
 * @len: bytes
 * @page: granularity of a repair, bytes, a power of two
 * @nr_pieces: pages of it that were replaced one by one
 */
struct guard {
	uint32_t seq;
	uintptr_t start;
	size_t len;
	size_t page;
	unsigned int nr_pieces;
};

static struct guard guards[SIGBUS_GUARDS_MAX];
/* Slots at and above this were never used: bounds the handler's search. */
static unsigned int nr_guards_used;
static uint64_t nr_repaired;
/* Sum of all guards' nr_pieces. */
static unsigned int nr_pieces;
static pthread_mutex_t guards_lock = PTHREAD_MUTEX_INITIALIZER;
static bool handler_installed;
static struct sigaction previous_action;

/* Is @addr in @guard? *@ret is a copy of it then. Async-signal-safe. */
static bool guard_covers(struct guard *guard, uintptr_t addr, struct guard *ret)
{
	/* Acquire loads, in order, between two looks at the number: pairs with guard_set()'s releases. */
	uint32_t seq = __atomic_load_n(&guard->seq, __ATOMIC_ACQUIRE);
	uintptr_t start = __atomic_load_n(&guard->start, __ATOMIC_ACQUIRE);
	size_t len = __atomic_load_n(&guard->len, __ATOMIC_ACQUIRE);
	size_t page = __atomic_load_n(&guard->page, __ATOMIC_ACQUIRE);

	if ((seq & 1) || __atomic_load_n(&guard->seq, __ATOMIC_RELAXED) != seq)
		return false;
	if (!start || addr < start || addr - start >= len)
		return false;
	*ret = (struct guard){ .start = start, .len = len, .page = page };
	return true;
}

/* mmap(2) is not on POSIX's list, but is a bare system call on Linux. */
static bool put_zeros(uintptr_t addr, size_t bytes)
{
	return mmap((void *)addr, bytes, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) != MAP_FAILED;
}

static void guard_forget_pieces(struct guard *guard)
{
	__atomic_fetch_sub(&nr_pieces, __atomic_exchange_n(&guard->nr_pieces, 0, __ATOMIC_ACQUIRE),
			   __ATOMIC_RELAXED);
}

static bool guard_repair(struct guard *guard, const struct guard *range, uintptr_t addr)
{
	if (__atomic_load_n(&nr_pieces, __ATOMIC_RELAXED) < SIGBUS_PIECES_MAX &&
	    put_zeros(addr & ~(uintptr_t)(range->page - 1), range->page)) {
		/* In this order: the sum is never less than its parts. */
		__atomic_fetch_add(&nr_pieces, 1, __ATOMIC_RELEASE);
		__atomic_fetch_add(&guard->nr_pieces, 1, __ATOMIC_RELEASE);
		return true;
	}
	if (!put_zeros(range->start, range->len))
		return false;
	guard_forget_pieces(guard);
	return true;
}

static bool repair(uintptr_t addr)
{
	unsigned int nr = __atomic_load_n(&nr_guards_used, __ATOMIC_ACQUIRE);

	for (unsigned int i = 0; i < nr; i++) {
		struct guard range;

		if (!guard_covers(&guards[i], addr, &range))
			continue;
		if (!guard_repair(&guards[i], &range, addr))
			return false;
		__atomic_fetch_add(&nr_repaired, 1, __ATOMIC_RELAXED);
		return true;
	}
	return false;
}

/* Not ours: whoever handled the signal before us gets it, else it ends the process as it would have. */
static void pass_on(int sig, siginfo_t *info, void *context)
{
	if (previous_action.sa_flags & SA_SIGINFO) {
		previous_action.sa_sigaction(sig, info, context);
		return;
	}
	if (previous_action.sa_handler != SIG_DFL && previous_action.sa_handler != SIG_IGN) {
		previous_action.sa_handler(sig);
		return;
	}
	if (info->si_code <= 0 && previous_action.sa_handler == SIG_IGN)
		return;
	/* The faulting instruction runs again and is fatal now; a signal that was sent is sent again. */
	signal(sig, SIG_DFL);
	if (info->si_code <= 0)
		raise(sig);
}

static void handle_sigbus(int sig, siginfo_t *info, void *context)
{
	int saved = errno;

	/* BUS_MCEERR_*, broken hardware, is not for us to hide. */
	if (info->si_code != BUS_ADRERR || !repair((uintptr_t)info->si_addr))
		pass_on(sig, info, context);
	errno = saved;
}

/* Context: guards_lock held. */
static int install_handler(void)
{
	struct sigaction action;

	if (handler_installed)
		return 0;
	memset(&action, 0, sizeof(action));
	action.sa_sigaction = handle_sigbus;
	action.sa_flags = SA_SIGINFO | SA_ONSTACK;
	sigemptyset(&action.sa_mask);
	/* previous_action must be in place before our handler can run. */
	if (sigaction(SIGBUS, NULL, &previous_action) < 0)
		return -errno;
	if (sigaction(SIGBUS, &action, NULL) < 0)
		return -errno;
	handler_installed = true;
	return 0;
}

/* Context: guards_lock held. */
static void guard_set(struct guard *guard, uintptr_t start, size_t len, size_t page)
{
	uint32_t seq = guard->seq;

	/* Releases, in order, between two changes of the number: pairs with guard_covers()'s acquires. */
	__atomic_store_n(&guard->seq, seq + 1, __ATOMIC_RELAXED);
	__atomic_store_n(&guard->start, start, __ATOMIC_RELEASE);
	__atomic_store_n(&guard->len, len, __ATOMIC_RELEASE);
	__atomic_store_n(&guard->page, page, __ATOMIC_RELEASE);
	__atomic_store_n(&guard->seq, seq + 2, __ATOMIC_RELEASE);
}

int sigbus_guard_add_paged(void *addr, size_t len, size_t page_bytes)
{
	int ret = -ENOSPC;

	assert(addr && len && page_bytes && !(page_bytes & (page_bytes - 1)));
	pthread_mutex_lock(&guards_lock);
	for (unsigned int i = 0; i < SIGBUS_GUARDS_MAX; i++) {
		if (guards[i].start)
			continue;
		ret = install_handler();
		if (ret < 0)
			break;
		guard_set(&guards[i], (uintptr_t)addr, len, page_bytes);
		if (i >= nr_guards_used)
			__atomic_store_n(&nr_guards_used, i + 1, __ATOMIC_RELEASE);
		break;
	}
	pthread_mutex_unlock(&guards_lock);
	return ret;
}

int sigbus_guard_add(void *addr, size_t len)
{
	return sigbus_guard_add_paged(addr, len, (size_t)sysconf(_SC_PAGESIZE));
}

void sigbus_guard_remove(void *addr)
{
	pthread_mutex_lock(&guards_lock);
	for (unsigned int i = 0; i < nr_guards_used; i++) {
		if (guards[i].start == (uintptr_t)addr) {
			guard_set(&guards[i], 0, 0, 1);
			guard_forget_pieces(&guards[i]);
			break;
		}
	}
	pthread_mutex_unlock(&guards_lock);
}

uint64_t sigbus_nr_repaired(void)
{
	return __atomic_load_n(&nr_repaired, __ATOMIC_RELAXED);
}
