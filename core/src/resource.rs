//! One value per resource, in a fixed array.
//!
//! A deployment has one to four resources. A fixed array keeps the hot path free of allocation; the index type
//! cannot point outside it, so that reading needs neither a panic nor an `Option`.

use crate::limits::MAX_RESOURCES;

/// Which resource: its position in the policy's resource table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceIndex(u8);

/// One `T` for each of the resources that a deployment can have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerResource<T>([T; MAX_RESOURCES]);

// === impl ResourceIndex ===

impl ResourceIndex {
    /// The first resource.
    pub const FIRST: ResourceIndex = ResourceIndex(0);

    /// The resource at `position`, if a deployment can have so many.
    #[must_use]
    pub const fn new(position: usize) -> Option<ResourceIndex> {
        if position < MAX_RESOURCES {
            Some(ResourceIndex(position as u8))
        } else {
            None
        }
    }

    /// The position in the resource table.
    #[must_use]
    pub const fn position(self) -> usize {
        self.0 as usize
    }

    /// A bit of its own for each resource.
    #[must_use]
    pub const fn bit(self) -> u8 {
        1_u8.wrapping_shl(self.0 as u32)
    }

    /// The first `count` resources.
    pub fn first(count: usize) -> impl Iterator<Item = ResourceIndex> + Clone {
        (0..count.min(MAX_RESOURCES) as u8).map(ResourceIndex)
    }
}

// === impl PerResource ===

impl<T> PerResource<T> {
    /// The same value for each resource.
    #[must_use]
    pub const fn all(value: T) -> PerResource<T>
    where
        T: Copy,
    {
        PerResource([value; MAX_RESOURCES])
    }

    /// A value for the first resource alone.
    #[must_use]
    pub fn only_first(value: T) -> PerResource<T>
    where
        T: Copy + Default,
    {
        let mut per_resource = PerResource::default();
        *per_resource.at_mut(ResourceIndex::FIRST) = value;
        per_resource
    }

    /// The value of one resource.
    #[must_use]
    pub const fn at(&self, resource: ResourceIndex) -> &T {
        let [first, second, third, fourth] = &self.0;
        match resource.0 {
            0 => first,
            1 => second,
            2 => third,
            _ => fourth,
        }
    }

    /// The value of one resource, to change it.
    pub const fn at_mut(&mut self, resource: ResourceIndex) -> &mut T {
        let [first, second, third, fourth] = &mut self.0;
        match resource.0 {
            0 => first,
            1 => second,
            2 => third,
            _ => fourth,
        }
    }

    /// The values in order.
    pub fn iter(&self) -> core::slice::Iter<'_, T> {
        self.0.iter()
    }

    /// The values in order, to change them.
    pub fn iter_mut(&mut self) -> core::slice::IterMut<'_, T> {
        self.0.iter_mut()
    }
}
