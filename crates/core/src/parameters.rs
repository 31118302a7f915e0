//! What a model directory stores of a model: named tables, plain arrays, and how columns become features.

use std::{collections::BTreeMap, sync::Arc};

use recmill_kernels::{Buffer, Table};

use crate::{Error, Result, features::Features};

/// One named part of a model.
#[derive(Debug)]
pub enum Parameter {
    /// Rows of factors; stored by row range, as `name/0`, `name/1` and so on.
    Table(Table),
    /// Plain f32 values, stored whole.
    F32(Buffer<f32>),
    /// Indices, stored whole.
    U32(Buffer<u32>),
    /// Offsets, stored whole.
    U64(Buffer<u64>),
    /// How columns become features; stored by itself, as JSON.
    Features(Arc<Features>),
}

/// All parts of a model by name, as read from a directory or about to be written to one.
#[derive(Debug, Default)]
pub struct Parameters(BTreeMap<String, Parameter>);

impl Parameters {
    /// Adds a part.
    pub fn insert(&mut self, name: &str, parameter: Parameter) {
        self.0.insert(name.to_owned(), parameter);
    }

    /// Returns whether there are no parts.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns all parts in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Parameter)> {
        self.0.iter().map(|(name, parameter)| (name.as_str(), parameter))
    }

    /// Returns the same parts with other tables.
    ///
    /// # Errors
    /// The first of `other`.
    pub fn map_tables<E>(
        self,
        mut other: impl FnMut(Table) -> std::result::Result<Table, E>,
    ) -> std::result::Result<Self, E> {
        let parts = self.0.into_iter().map(|(name, part)| match part {
            Parameter::Table(table) => Ok((name, Parameter::Table(other(table)?))),
            other => Ok((name, other)),
        });
        Ok(Self(parts.collect::<std::result::Result<_, E>>()?))
    }

    /// Takes the part called `name` out, whatever it is.
    pub fn take(&mut self, name: &str) -> Option<Parameter> {
        self.0.remove(name)
    }

    /// Takes the parts whose names begin with `prefix` out, under the rest of their names.
    pub fn take_prefixed(&mut self, prefix: &str) -> Self {
        let (taken, left) =
            std::mem::take(&mut self.0).into_iter().partition(|(name, _)| name.starts_with(prefix));
        self.0 = left;
        let taken: BTreeMap<String, Parameter> = taken;
        Self(taken.into_iter().map(|(name, part)| (name[prefix.len()..].to_owned(), part)).collect())
    }

    /// Adds the parts of `others`, with `prefix` before their names.
    pub fn extend_prefixed(&mut self, prefix: &str, others: Self) {
        self.0.extend(others.0.into_iter().map(|(name, part)| (format!("{prefix}{name}"), part)));
    }

    /// Takes the features called `name` out, where there are some.
    pub fn take_features(&mut self, name: &str) -> Option<Arc<Features>> {
        match self.0.remove(name) {
            Some(Parameter::Features(features)) => Some(features),
            _ => None,
        }
    }

    /// Takes the table called `name` out.
    ///
    /// # Errors
    /// [`Error::MissingParameter`] when there is no table of this name.
    pub fn take_table(&mut self, name: &'static str) -> Result<Table> {
        match self.0.remove(name) {
            Some(Parameter::Table(table)) => Ok(table),
            _ => Err(Error::MissingParameter { name }),
        }
    }

    /// Takes the f32 values called `name` out.
    ///
    /// # Errors
    /// [`Error::MissingParameter`] when there are none of this name.
    pub fn take_f32(&mut self, name: &'static str) -> Result<Buffer<f32>> {
        match self.0.remove(name) {
            Some(Parameter::F32(values)) => Ok(values),
            _ => Err(Error::MissingParameter { name }),
        }
    }

    /// Takes the values of a network's parameter out.
    ///
    /// # Errors
    /// [`Error::MissingDense`] when there are none of this name.
    pub fn take_dense(&mut self, name: &str) -> Result<Buffer<f32>> {
        match self.0.remove(name) {
            Some(Parameter::F32(values)) => Ok(values),
            _ => Err(Error::MissingDense { name: name.to_owned() }),
        }
    }

    /// Takes the indices called `name` out.
    ///
    /// # Errors
    /// [`Error::MissingParameter`] when there are none of this name.
    pub fn take_u32(&mut self, name: &'static str) -> Result<Buffer<u32>> {
        match self.0.remove(name) {
            Some(Parameter::U32(values)) => Ok(values),
            _ => Err(Error::MissingParameter { name }),
        }
    }

    /// Takes the offsets called `name` out.
    ///
    /// # Errors
    /// [`Error::MissingParameter`] when there are none of this name.
    pub fn take_u64(&mut self, name: &'static str) -> Result<Buffer<u64>> {
        match self.0.remove(name) {
            Some(Parameter::U64(values)) => Ok(values),
            _ => Err(Error::MissingParameter { name }),
        }
    }
}
