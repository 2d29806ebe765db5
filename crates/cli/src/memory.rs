//! How the allocator deals with large payloads.

/// Lets the allocator keep some of what was freed. By default glibc gives the memory of a large payload back to the system as soon as
/// it is freed, and takes it again page by page for the next one, which costs more than copying the payload.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code)]
pub(crate) fn keep() {
    const KEPT: libc::c_int = 64 << 20;
    const MAPPED_FROM: libc::c_int = 16 << 20;
    // SAFETY: it sets two numbers of the allocator, before there are other threads. If it refuses, all stays as it was.
    unsafe {
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT);
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_FROM);
    }
}

/// Other allocators need no telling.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn keep() {}
