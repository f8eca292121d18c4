//! Numbered places: an event carries a small number, and the number leads back to its object.

/// Objects by number; a freed number is used again.
#[derive(Debug)]
pub struct Slots<T>(Vec<Option<T>>);

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Slots<T> {
    /// Puts `object` into the first free place.
    pub fn insert(&mut self, object: T) -> u32 {
        let free = self.0.iter().position(Option::is_none).unwrap_or_else(|| {
            self.0.push(None);
            self.0.len() - 1
        });
        self.0[free] = Some(object);
        u32::try_from(free).unwrap_or(u32::MAX) // there are never more objects than descriptors
    }

    /// The object in place `number`.
    pub fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        self.0.get_mut(number as usize)?.as_mut()
    }

    /// Takes it out.
    pub fn remove(&mut self, number: u32) -> Option<T> {
        self.0.get_mut(number as usize)?.take()
    }

    /// All objects.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().flatten()
    }

    /// All objects with their numbers.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut T)> {
        (0..).zip(self.0.iter_mut()).filter_map(|(number, place)| Some((number, place.as_mut()?)))
    }

    /// Whether there is nothing in any place.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_freed_number_is_used_again_and_others_keep_theirs() {
        let mut slots = Slots::default();
        let (a, b) = (slots.insert('a'), slots.insert('b'));
        slots.remove(a);
        assert_eq!(slots.insert('c'), a);
        assert_eq!(slots.get_mut(b), Some(&mut 'b'));
        assert_eq!(slots.iter_mut().map(|(n, c)| (n, *c)).collect::<Vec<_>>(), [(a, 'c'), (b, 'b')]);
        assert!(!slots.is_empty());
    }
}
