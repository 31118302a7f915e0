//! Users and items, and their positions inside: small numbers that cannot be taken for one another.

/// A user's row: the order in which users first appeared in the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(transparent)]
pub struct UserIndex(pub u32);

/// An item's row: the order in which items first appeared in the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(transparent)]
pub struct ItemIndex(pub u32);

/// The two kinds of those that interact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Who acts.
    Users,
    /// What is acted on.
    Items,
}

impl Side {
    /// Returns what they are called in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Users => "users",
            Self::Items => "items",
        }
    }
}

impl UserIndex {
    /// Returns the index as a position in a slice.
    pub fn at(self) -> usize {
        self.0 as usize
    }
}

impl ItemIndex {
    /// Returns the index as a position in a slice.
    pub fn at(self) -> usize {
        self.0 as usize
    }
}
