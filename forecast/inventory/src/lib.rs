//! `inventory`, except that a wasm build keeps only the registrations that inference needs.
//!
//! tract registers kernels, graph transforms, runtimes and settings with `inventory::submit!`. Each registration is a
//! static constructor, which the linker must keep, with all code that it refers to: NNEF, convolution, pooling and FFT
//! would make the plugin several times as large, and Envoy compiles all of it before it is ready to serve. tract has
//! no feature that leaves them out. What inference does look up are the kernels of `tract_linalg`; the rest serves
//! tools that choose transforms by name. So in wasm the constructors of all other crates are empty, and so are those
//! of the matrix kernels that no model of contract v1 reaches. On other targets
//! nothing is left out: trainer, tests and control plane run an unchanged tract.
//!
//! Alternatives that were worse: editing constructors out of the linked module (its function table keeps their code
//! alive), a copy of tract without the registrations (a fork to maintain), and wrapping the original crate (cargo
//! does not link two compatible versions of one name).
//!
//! Reduced from `inventory` 0.3.25 by David Tolnay (MIT OR Apache-2.0): the same list of nodes that constructors push
//! to, without the parts that tract does not use.

#![no_std]
// A registry filled by constructors before `main` cannot be had without it: nodes are linked through statics.
#![allow(unsafe_code)]

use core::cell::UnsafeCell;
use core::marker::PhantomData;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

/// A type whose values are registered. [`collect!`] implements it.
pub trait Collect: Sync + Sized + 'static {
    /// The list of this type.
    #[doc(hidden)]
    fn registry() -> &'static Registry;
}

/// The head of a list of registrations.
#[doc(hidden)]
#[derive(Debug)]
pub struct Registry {
    head: AtomicPtr<Node>,
}

/// One registration.
#[doc(hidden)]
pub struct Node {
    /// What was registered.
    pub value: &'static dyn Registered,
    /// The node that was registered before.
    pub next: UnsafeCell<Option<&'static Node>>,
    /// Set by the constructor; a module whose linkage calls constructors twice must not tie the list into a ring.
    pub submitted: AtomicBool,
}

/// A value of unknown type that knows its list.
#[doc(hidden)]
pub trait Registered: Sync {
    /// Adds `node`, which holds this very value, to the list of the value's type.
    fn submit(&self, node: &'static Node);
}

/// The registrations of a type, in no particular order.
#[derive(Debug)]
pub struct Iter<T: 'static> {
    node: Option<&'static Node>,
    kind: PhantomData<T>,
}

mod phantom {
    /// Cannot be made: it only gives `iter<T>` its parameter.
    enum Never {}

    #[repr(C, packed)]
    pub struct Phantom<T>([*const T; 0], Never);

    unsafe impl<T> Send for Phantom<T> {}
    unsafe impl<T> Sync for Phantom<T> {}
}

mod value {
    pub use crate::kind::iter::iter;
}

mod kind {
    /// A type and its only value have the same name, so that both `iter::<T>.into_iter()` and `iter::<T>()` work.
    #[allow(non_camel_case_types)]
    pub enum iter<T> {
        /// Never made.
        #[doc(hidden)]
        __Phantom(crate::phantom::Phantom<T>),
        /// All registrations of `T`.
        iter,
    }

    pub use crate::value::*;
}

#[doc(hidden)]
pub use kind::*;

/// The crate whose registrations a wasm build keeps.
const KEPT_IN_WASM: &str = "tract_linalg";

/// A module of it that is dropped all the same: matrix kernels of half, double and byte width, and those of single
/// width that stand behind the faster ones for wasm. A model of contract v1 multiplies single width only.
const DROPPED_IN_WASM: &str = "tract_linalg::generic::mmm";

/// Whether what `module_path` registers is kept. A constant, so that what is dropped leaves no trace.
#[doc(hidden)]
#[must_use]
pub const fn is_kept(module_path: &str) -> bool {
    !cfg!(target_family = "wasm")
        || (lies_in(module_path, KEPT_IN_WASM) && !lies_in(module_path, DROPPED_IN_WASM))
}

/// Whether a module path is `module` or inside it.
const fn lies_in(module_path: &str, module: &str) -> bool {
    let (mut path, mut name) = (module_path.as_bytes(), module.as_bytes());
    while let ([letter, path_rest @ ..], [wanted, name_rest @ ..]) = (path, name) {
        if *letter != *wanted {
            return false;
        }
        (path, name) = (path_rest, name_rest);
    }
    name.is_empty() && matches!(path, [] | [b':', ..])
}

/// Makes a type collectable.
#[macro_export]
macro_rules! collect {
    ($kind:ty) => {
        impl $crate::Collect for $kind {
            #[inline]
            fn registry() -> &'static $crate::Registry {
                static REGISTRY: $crate::Registry = $crate::Registry::new();
                &REGISTRY
            }
        }
    };
}

/// Registers a value before `main`, unless [`is_kept`] says that this build can do without it.
///
/// The constructor itself always stays, as a macro cannot know its caller's path before the compiler does; an empty
/// one refers to nothing, and the linker drops the rest.
#[macro_export]
macro_rules! submit {
    ($($value:tt)*) => {
        #[allow(non_upper_case_globals)]
        const _: () = {
            // A literal, not a call: only here does the borrowed value live as long as the static.
            static __INVENTORY: $crate::Node = $crate::Node {
                value: &{ $($value)* },
                next: ::core::cell::UnsafeCell::new(::core::option::Option::None),
                submitted: ::core::sync::atomic::AtomicBool::new(false),
            };
            const __KEPT: bool = $crate::is_kept(::core::module_path!());

            unsafe extern "C" fn __constructor() {
                if __KEPT {
                    __INVENTORY.submit();
                }
            }

            #[used]
            #[cfg_attr(
                any(target_family = "wasm", all(unix, not(target_vendor = "apple"))),
                unsafe(link_section = ".init_array")
            )]
            #[cfg_attr(target_vendor = "apple", unsafe(link_section = "__DATA,__mod_init_func,mod_init_funcs"))]
            #[cfg_attr(windows, unsafe(link_section = ".CRT$XCU"))]
            static __CONSTRUCTOR: unsafe extern "C" fn() = __constructor;
        };
    };
}

// === impl Registry ===

impl Registry {
    /// An empty list.
    #[doc(hidden)]
    #[must_use]
    pub const fn new() -> Self {
        Self {
            head: AtomicPtr::new(ptr::null_mut()),
        }
    }

    fn push(&self, node: &'static Node) {
        if node.submitted.swap(true, Ordering::Relaxed) {
            return;
        }
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            // SAFETY: `head` is null or points to a node, which is static; nobody reads `next` before the node is in
            // the list, and `submitted` lets only one caller come here per node.
            unsafe { *node.next.get() = head.as_ref() };
            let new = ptr::from_ref(node).cast_mut();
            match self
                .head
                .compare_exchange(head, new, Ordering::Release, Ordering::Relaxed)
            {
                Ok(_) => return,
                Err(changed) => head = changed,
            }
        }
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

// === impl Node ===

// SAFETY: `value` is Sync, and `next` is written only before the node can be reached by readers.
unsafe impl Sync for Node {}

impl Node {
    /// Puts the node into the list of its value's type.
    #[doc(hidden)]
    pub fn submit(&'static self) {
        self.value.submit(self);
    }
}

impl core::fmt::Debug for Node {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Node").finish_non_exhaustive()
    }
}

impl<T: Collect> Registered for T {
    fn submit(&self, node: &'static Node) {
        T::registry().push(node);
    }
}

// === impl iter ===

fn registrations<T: Collect>() -> Iter<T> {
    let head = T::registry().head.load(Ordering::Acquire);
    // SAFETY: null or a static node, see `push`.
    Iter {
        node: unsafe { head.as_ref() },
        kind: PhantomData,
    }
}

const _: () = {
    impl<T: Collect> IntoIterator for iter<T> {
        type Item = &'static T;
        type IntoIter = Iter<T>;

        fn into_iter(self) -> Self::IntoIter {
            registrations()
        }
    }

    impl<T: Collect> core::ops::Deref for iter<T> {
        type Target = fn() -> Iter<T>;

        fn deref(&self) -> &Self::Target {
            &(registrations as fn() -> Iter<T>)
        }
    }
};

impl<T: 'static> Iterator for Iter<T> {
    type Item = &'static T;

    fn next(&mut self) -> Option<Self::Item> {
        let node = self.node?;
        // SAFETY: only nodes whose value is a `T` are pushed to the list of `T`; `next` no longer changes once the
        // node is in a list.
        unsafe {
            self.node = *node.next.get();
            Some(&*ptr::from_ref(node.value).cast::<T>())
        }
    }
}

#[cfg(test)]
mod tests {
    use core::cell::UnsafeCell;
    use core::sync::atomic::AtomicBool;

    use super::{DROPPED_IN_WASM, lies_in};

    struct Entry(u32);
    crate::collect!(Entry);
    crate::submit! { Entry(1) }
    crate::submit! {
        Entry(2)
    }

    struct Nobody;
    crate::collect!(Nobody);

    #[test]
    fn a_native_build_keeps_everything() {
        let mut found: [u32; 2] = [0; 2];
        let mut count = 0;
        for entry in crate::iter::<Entry> {
            found[count] = entry.0;
            count += 1;
        }
        found.sort_unstable();
        assert_eq!((count, found), (2, [1, 2]));
        assert_eq!(crate::iter::<Entry>().count(), 2);
        assert_eq!(crate::iter::<Nobody>().count(), 0);
    }

    #[test]
    fn a_constructor_that_runs_twice_registers_once() {
        static AGAIN: crate::Node = crate::Node {
            value: &Twice,
            next: UnsafeCell::new(None),
            submitted: AtomicBool::new(false),
        };
        struct Twice;
        crate::collect!(Twice);
        AGAIN.submit();
        AGAIN.submit();
        assert_eq!(crate::iter::<Twice>().count(), 1);
    }

    #[test]
    fn paths_are_compared_by_whole_names() {
        assert!(lies_in("tract_linalg", "tract_linalg"));
        assert!(lies_in("tract_linalg::generic::mmm", "tract_linalg"));
        assert!(!lies_in("tract_core::transform", "tract_linalg"));
        assert!(lies_in("tract_linalg::generic::mmm", DROPPED_IN_WASM));
        assert!(!lies_in("tract_linalg::generic::sigmoid", DROPPED_IN_WASM));
        assert!(!lies_in(
            "tract_linalg::wasm::mmm_f32_gemm",
            DROPPED_IN_WASM
        ));
        assert!(!lies_in("tract_linalgebra", "tract_linalg"));
        assert!(!lies_in("tract", "tract_linalg"));
    }
}
