//! Arguments in, exit code out: everything else is in the library. And the allocator: a third of a request's processor time was
//! glibc's (docs/performance.md).

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    fleetbus::cli::main()
}
