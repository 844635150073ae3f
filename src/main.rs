//! Arguments in, exit code out: everything else is in the library. And the allocator, of the C libraries inside, too: what one thread
//! allocates for a message another one frees, a score of times each, and glibc's takes a third of the processor for it
//! (docs/performance.md).

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() {
    fleetbus::cli::main()
}
