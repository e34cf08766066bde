//! The numbers of system calls by their names.
//!
//! The kernel's own lists, as runs: a number, and the names from it on. So they take a third of what a table of the
//! libc crate's constants would.
#![forbid(unsafe_code)]

/// arch/x86/entry/syscalls/syscall_64.tbl
#[cfg(target_arch = "x86_64")]
const OWN: &str = "0 read write open close stat fstat lstat poll lseek mmap mprotect munmap brk rt_sigaction rt_sigprocmask \
    rt_sigreturn ioctl pread64 pwrite64 readv writev access pipe select sched_yield mremap msync mincore \
    madvise shmget shmat shmctl dup dup2 pause nanosleep getitimer alarm setitimer getpid sendfile socket \
    connect accept sendto recvfrom sendmsg recvmsg shutdown bind listen getsockname getpeername socketpair \
    setsockopt getsockopt clone fork vfork execve exit wait4 kill uname semget semop semctl shmdt msgget msgsnd \
    msgrcv msgctl fcntl flock fsync fdatasync truncate ftruncate getdents getcwd chdir fchdir rename mkdir \
    rmdir creat link unlink symlink readlink chmod fchmod chown fchown lchown umask gettimeofday getrlimit \
    getrusage sysinfo times ptrace getuid syslog getgid setuid setgid geteuid getegid setpgid getppid getpgrp \
    setsid setreuid setregid getgroups setgroups setresuid getresuid setresgid getresgid getpgid setfsuid \
    setfsgid getsid capget capset rt_sigpending rt_sigtimedwait rt_sigqueueinfo rt_sigsuspend sigaltstack utime \
    mknod uselib personality ustat statfs fstatfs sysfs getpriority setpriority sched_setparam sched_getparam \
    sched_setscheduler sched_getscheduler sched_get_priority_max sched_get_priority_min sched_rr_get_interval \
    mlock munlock mlockall munlockall vhangup modify_ldt pivot_root _sysctl prctl arch_prctl adjtimex setrlimit \
    chroot sync acct settimeofday mount umount2 swapon swapoff reboot sethostname setdomainname iopl ioperm \
    create_module init_module delete_module get_kernel_syms query_module quotactl nfsservctl getpmsg putpmsg \
    afs_syscall tuxcall security gettid readahead setxattr lsetxattr fsetxattr getxattr lgetxattr fgetxattr \
    listxattr llistxattr flistxattr removexattr lremovexattr fremovexattr tkill time futex sched_setaffinity \
    sched_getaffinity set_thread_area io_setup io_destroy io_getevents io_submit io_cancel get_thread_area \
    lookup_dcookie epoll_create epoll_ctl_old epoll_wait_old remap_file_pages getdents64 set_tid_address \
    restart_syscall semtimedop fadvise64 timer_create timer_settime timer_gettime timer_getoverrun timer_delete \
    clock_settime clock_gettime clock_getres clock_nanosleep exit_group epoll_wait epoll_ctl tgkill utimes \
    vserver mbind set_mempolicy get_mempolicy mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify \
    mq_getsetattr kexec_load waitid add_key request_key keyctl ioprio_set ioprio_get inotify_init \
    inotify_add_watch inotify_rm_watch migrate_pages openat mkdirat mknodat fchownat futimesat newfstatat \
    unlinkat renameat linkat symlinkat readlinkat fchmodat faccessat pselect6 ppoll unshare set_robust_list \
    get_robust_list splice tee sync_file_range vmsplice move_pages utimensat epoll_pwait signalfd \
    timerfd_create eventfd fallocate timerfd_settime timerfd_gettime accept4 signalfd4 eventfd2 epoll_create1 \
    dup3 pipe2 inotify_init1 preadv pwritev rt_tgsigqueueinfo perf_event_open recvmmsg fanotify_init \
    fanotify_mark prlimit64 name_to_handle_at open_by_handle_at clock_adjtime syncfs sendmmsg setns getcpu \
    process_vm_readv process_vm_writev kcmp finit_module sched_setattr sched_getattr renameat2 seccomp \
    getrandom memfd_create kexec_file_load bpf execveat userfaultfd membarrier mlock2 copy_file_range preadv2 \
    pwritev2 pkey_mprotect pkey_alloc pkey_free statx io_pgetevents rseq";
/// scripts/syscall.tbl, for the machines of include/uapi/asm-generic/unistd.h
#[cfg(any(target_arch = "aarch64", target_arch = "riscv64", target_arch = "loongarch64"))]
const OWN: &str = "0 io_setup io_destroy io_submit io_cancel io_getevents setxattr lsetxattr fsetxattr getxattr lgetxattr \
    fgetxattr listxattr llistxattr flistxattr removexattr lremovexattr fremovexattr getcwd lookup_dcookie \
    eventfd2 epoll_create1 epoll_ctl epoll_pwait dup dup3 fcntl inotify_init1 inotify_add_watch \
    inotify_rm_watch ioctl ioprio_set ioprio_get flock mknodat mkdirat unlinkat symlinkat linkat renameat \
    umount2 mount pivot_root nfsservctl statfs fstatfs truncate ftruncate fallocate faccessat chdir fchdir \
    chroot fchmod fchmodat fchownat fchown openat close vhangup pipe2 quotactl getdents64 lseek read write \
    readv writev pread64 pwrite64 preadv pwritev sendfile pselect6 ppoll signalfd4 vmsplice splice tee \
    readlinkat newfstatat fstat sync fsync fdatasync sync_file_range timerfd_create timerfd_settime \
    timerfd_gettime utimensat acct capget capset personality exit exit_group waitid set_tid_address unshare \
    futex set_robust_list get_robust_list nanosleep getitimer setitimer kexec_load init_module delete_module \
    timer_create timer_gettime timer_getoverrun timer_settime timer_delete clock_settime clock_gettime \
    clock_getres clock_nanosleep syslog ptrace sched_setparam sched_setscheduler sched_getscheduler \
    sched_getparam sched_setaffinity sched_getaffinity sched_yield sched_get_priority_max \
    sched_get_priority_min sched_rr_get_interval restart_syscall kill tkill tgkill sigaltstack rt_sigsuspend \
    rt_sigaction rt_sigprocmask rt_sigpending rt_sigtimedwait rt_sigqueueinfo rt_sigreturn setpriority \
    getpriority reboot setregid setgid setreuid setuid setresuid getresuid setresgid getresgid setfsuid \
    setfsgid times setpgid getpgid getsid setsid getgroups setgroups uname sethostname setdomainname getrlimit \
    setrlimit getrusage umask prctl getcpu gettimeofday settimeofday adjtimex getpid getppid getuid geteuid \
    getgid getegid gettid sysinfo mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr msgget \
    msgctl msgrcv msgsnd semget semctl semtimedop semop shmget shmctl shmat shmdt socket socketpair bind listen \
    accept connect getsockname getpeername sendto recvfrom setsockopt getsockopt shutdown sendmsg recvmsg \
    readahead brk munmap mremap add_key request_key keyctl clone execve mmap fadvise64 swapon swapoff mprotect \
    msync mlock munlock mlockall munlockall mincore madvise remap_file_pages mbind get_mempolicy set_mempolicy \
    migrate_pages move_pages rt_tgsigqueueinfo perf_event_open accept4 recvmmsg 260 wait4 prlimit64 \
    fanotify_init fanotify_mark name_to_handle_at open_by_handle_at clock_adjtime syncfs setns sendmmsg \
    process_vm_readv process_vm_writev kcmp finit_module sched_setattr sched_getattr renameat2 seccomp \
    getrandom memfd_create bpf execveat userfaultfd membarrier mlock2 copy_file_range preadv2 pwritev2 \
    pkey_mprotect pkey_alloc pkey_free statx io_pgetevents rseq kexec_file_load 403 clock_gettime64 \
    clock_settime64 clock_adjtime64 clock_getres_time64 clock_nanosleep_time64 timer_gettime64 timer_settime64 \
    timerfd_gettime64 timerfd_settime64 utimensat_time64 pselect6_time64 ppoll_time64 416 io_pgetevents_time64 \
    recvmmsg_time64 mq_timedsend_time64 mq_timedreceive_time64 semtimedop_time64 rt_sigtimedwait_time64 \
    futex_time64 sched_rr_get_interval_time64";
/// From 424 on numbers are the same on all machines. The last one is of Linux 6.17.
const COMMON: &str = "424 pidfd_send_signal io_uring_setup io_uring_enter io_uring_register open_tree move_mount fsopen fsconfig \
    fsmount fspick pidfd_open clone3 close_range openat2 pidfd_getfd faccessat2 process_madvise epoll_pwait2 \
    mount_setattr quotactl_fd landlock_create_ruleset landlock_add_rule landlock_restrict_self memfd_secret \
    process_mrelease futex_waitv set_mempolicy_home_node cachestat fchmodat2 map_shadow_stack futex_wake \
    futex_wait futex_requeue statmount listmount lsm_get_self_attr lsm_set_self_attr lsm_list_modules mseal \
    setxattrat getxattrat listxattrat removexattrat open_tree_attr file_getattr file_setattr";
/// Other machines have no list here; a filter for them is given as BPF.
#[cfg(not(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "riscv64",
    target_arch = "loongarch64"
)))]
const OWN: &str = "0";

/// The number of a call; `None`: this machine, or this list, does not have it.
pub fn number(name: &str) -> Option<u32> {
    let mut number = 0;
    for word in OWN.split(' ').chain(COMMON.split(' ')) {
        if word == name && !word.starts_with(|c: char| c.is_ascii_digit()) {
            return Some(number);
        }
        match word.parse() {
            Ok(first) => number = first,
            Err(_) => number += 1,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names that all of these machines have, against the numbers that the libc crate has.
    macro_rules! compare {
        ($($name:ident: $constant:ident,)*) => {
            $(assert_eq!(number(stringify!($name)).map(i64::from), Some(libc::$constant), stringify!($name));)*
        };
    }

    #[test]
    fn c1_numbers_are_those_of_the_kernel() {
        compare! {
            read: SYS_read, write: SYS_write, close: SYS_close, mmap: SYS_mmap, munmap: SYS_munmap, brk: SYS_brk,
            ioctl: SYS_ioctl, lseek: SYS_lseek, fcntl: SYS_fcntl, sendfile: SYS_sendfile, clone: SYS_clone,
            execve: SYS_execve, exit: SYS_exit, exit_group: SYS_exit_group, wait4: SYS_wait4, kill: SYS_kill,
            uname: SYS_uname, statfs: SYS_statfs, ftruncate: SYS_ftruncate, newfstatat: SYS_newfstatat,
            fstat: SYS_fstat, getcwd: SYS_getcwd, ptrace: SYS_ptrace, mount: SYS_mount, umount2: SYS_umount2,
            pivot_root: SYS_pivot_root, prctl: SYS_prctl, futex: SYS_futex, set_tid_address: SYS_set_tid_address,
            fadvise64: SYS_fadvise64, openat: SYS_openat, unlinkat: SYS_unlinkat, renameat2: SYS_renameat2,
            seccomp: SYS_seccomp, getrandom: SYS_getrandom, bpf: SYS_bpf, execveat: SYS_execveat,
            userfaultfd: SYS_userfaultfd, membarrier: SYS_membarrier, mlock2: SYS_mlock2, statx: SYS_statx,
            copy_file_range: SYS_copy_file_range, preadv2: SYS_preadv2, pkey_free: SYS_pkey_free, rseq: SYS_rseq,
            setns: SYS_setns, unshare: SYS_unshare, keyctl: SYS_keyctl, add_key: SYS_add_key, socket: SYS_socket,
            accept4: SYS_accept4, recvmmsg: SYS_recvmmsg, prlimit64: SYS_prlimit64, kcmp: SYS_kcmp,
            finit_module: SYS_finit_module, sched_setattr: SYS_sched_setattr, process_vm_readv: SYS_process_vm_readv,
            pidfd_send_signal: SYS_pidfd_send_signal, io_uring_setup: SYS_io_uring_setup, clone3: SYS_clone3,
            close_range: SYS_close_range, openat2: SYS_openat2, faccessat2: SYS_faccessat2,
            landlock_restrict_self: SYS_landlock_restrict_self, futex_waitv: SYS_futex_waitv, fchmodat2: SYS_fchmodat2,
            mseal: SYS_mseal,
        }
        #[cfg(target_arch = "x86_64")]
        compare! { open: SYS_open, fork: SYS_fork, arch_prctl: SYS_arch_prctl, personality: SYS_personality, }
        for name in ["", "0", "424", "no_such_call", "Read", "read "] {
            assert_eq!(number(name), None, "{name:?}");
        }
    }

    #[test]
    fn c1_numbers_are_those_of_this_machines_headers() {
        let header = if cfg!(target_arch = "x86_64") { "/usr/include/x86_64-linux-gnu/asm/unistd_64.h" } else { "" };
        // Not every machine has them installed.
        for line in std::fs::read_to_string(header).unwrap_or_default().lines() {
            let Some((name, value)) = line.strip_prefix("#define __NR_").and_then(|rest| rest.split_once(' ')) else {
                continue;
            };
            assert!(number(name).is_none_or(|number| Ok(number) == value.trim().parse()), "{line}");
        }
    }
}
