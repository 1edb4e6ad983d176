/* Which sanitizer this program is built with, for the few promises that cannot be seen, or kept, under one. */
#ifndef TESTS_SANITIZED_H
#define TESTS_SANITIZED_H

#if defined(__SANITIZE_ADDRESS__)
#define ADDRESS_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ADDRESS_SANITIZED 1
#endif
#endif
#ifndef ADDRESS_SANITIZED
#define ADDRESS_SANITIZED 0
#endif

#if defined(__SANITIZE_THREAD__)
#define THREAD_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define THREAD_SANITIZED 1
#endif
#endif
#ifndef THREAD_SANITIZED
#define THREAD_SANITIZED 0
#endif

#define SANITIZED (ADDRESS_SANITIZED || THREAD_SANITIZED)

/*
 * The address sanitizer's allocator has locks of its own, which fork does not wait for: in a child that was forked
 * while another thread was in malloc, the first malloc may wait for good.
 */
#define SKIP_WHERE_FORK_BREAKS_MALLOC()                                                                                \
    do {                                                                                                               \
        if (ADDRESS_SANITIZED) {                                                                                       \
            print_message("skipped: the address sanitizer's allocator does not survive a fork beside busy threads\n"); \
            skip();                                                                                                    \
        }                                                                                                              \
    } while (0)

#endif
