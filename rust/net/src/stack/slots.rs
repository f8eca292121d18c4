//! Numbered places whose numbers are not mistaken for those of their next tenants.

/// Which place, and which of its tenants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Number {
    /// The place.
    pub index: u32,
    /// The tenant, modulo 2^24.
    pub tenant: u32,
}

/// Objects by number.
#[derive(Debug)]
pub struct Slots<T> {
    places: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slots<T> {
    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Puts in what `make` makes of its number.
    pub fn insert(&mut self, object: T) -> Number {
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push((0, None));
            u32::try_from(self.places.len() - 1).unwrap_or(0)
        });
        let place = &mut self.places[index as usize];
        place.0 = (place.0 + 1) & 0x00ff_ffff;
        place.1 = Some(object);
        Number { index, tenant: place.0 }
    }

    /// The object, if it is still that one.
    pub fn get_mut(&mut self, number: Number) -> Option<&mut T> {
        let (tenant, object) = self.places.get_mut(number.index as usize)?;
        object.as_mut().filter(|_| *tenant == number.tenant)
    }

    /// Takes it out.
    pub fn remove(&mut self, number: Number) -> Option<T> {
        let (tenant, object) = self.places.get_mut(number.index as usize)?;
        if *tenant != number.tenant {
            return None;
        }
        let taken = object.take()?;
        self.free.push(number.index);
        if self.free.len() == self.places.len() {
            // A burst is over: its memory goes back, but numbers must not come again too soon.
            let last = self.places.iter().map(|(tenant, _)| *tenant).max().unwrap_or(0);
            self.places.clear();
            self.free.clear();
            self.places.push((last, None));
            self.free.push(0);
            self.places.shrink_to_fit();
            self.free.shrink_to_fit();
        }
        Some(taken)
    }

    /// All objects with their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (Number, &T)> {
        (0..).zip(&self.places).filter_map(|(index, (tenant, object))| {
            Some((Number { index, tenant: *tenant }, object.as_ref()?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_number_does_not_lead_to_a_new_object() {
        let mut slots = Slots::default();
        let (a, b) = (slots.insert('a'), slots.insert('b'));
        assert_eq!(slots.remove(a), Some('a'));
        let c = slots.insert('c');
        assert_eq!(c.index, a.index);
        assert_eq!(slots.get_mut(a), None);
        assert_eq!(slots.remove(a), None);
        assert_eq!(slots.len(), 2);
        assert_eq!(slots.get_mut(b), Some(&mut 'b'));
        slots.remove(b);
        slots.remove(c);
        let d = slots.insert('d');
        assert!(d != a && d != c);
    }
}
