/* signals [N]: prints each signal that comes, a line each, and exits with 9 on signal N. SIGWINCH comes with the
 * terminal's size. By raw system calls: the C library blocks and hides 32 and 33. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv) {
    unsigned long all = ~0UL;
    unsigned last = argc > 1 ? (unsigned)atoi(argv[1]) : 0;
    if (syscall(SYS_rt_sigprocmask, 0 /* SIG_BLOCK */, &all, NULL, sizeof all) != 0)
        return 1;
    int signals = (int)syscall(SYS_signalfd4, -1, &all, sizeof all, 0);
    struct signalfd_siginfo info;
    puts("ready");
    fflush(stdout);
    while (read(signals, &info, sizeof info) == sizeof info) {
        struct winsize size = {0};
        if (info.ssi_signo == 28 && ioctl(0, TIOCGWINSZ, &size) == 0)
            printf("%u %ux%u\n", info.ssi_signo, size.ws_row, size.ws_col);
        else
            printf("%u\n", info.ssi_signo);
        fflush(stdout);
        if (info.ssi_signo == last)
            return 9;
    }
    return 1;
}
