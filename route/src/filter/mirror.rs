//! Mirrors: which requests are copied.

use super::{FilterError, Mirror};
use crate::{name::BackendId, split::scale};

/// A `RequestMirror`, ready for requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sampler {
    backend: BackendId,
    numerator: u64,
    denominator: u64,
}

impl Sampler {
    /// Prepares a mirror.
    pub fn new(mirror: &Mirror) -> Result<Self, FilterError> {
        if mirror.denominator == 0 {
            return Err(FilterError::Fraction);
        }
        let (numerator, denominator) = (mirror.numerator.into(), mirror.denominator.into());
        Ok(Self { backend: mirror.backend.clone(), numerator, denominator })
    }

    /// Whose endpoints get the copies: one endpoint each.
    pub fn backend(&self) -> &BackendId {
        &self.backend
    }

    /// Whether 64 random bits choose this request.
    pub fn takes(&self, random: u64) -> bool {
        scale(random, self.denominator) < self.numerator
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    use super::*;
    use crate::name::ServicePort;

    fn sampler(numerator: u32, denominator: u32) -> Result<Sampler, FilterError> {
        Sampler::new(&Mirror {
            backend: BackendId::Service(ServicePort::new("shop", "copy", 80)),
            numerator,
            denominator,
        })
    }

    #[test]
    fn a_share_of_the_requests_is_taken() {
        let mut rng = StdRng::seed_from_u64(3);
        let quarter = sampler(1, 4).unwrap();
        let taken = (0..100_000).filter(|_| quarter.takes(rng.random())).count();
        assert!((24_500..25_500).contains(&taken), "{taken}");
    }

    #[test]
    fn none_and_all_are_exact() {
        for random in [0, 1, u64::MAX / 2, u64::MAX] {
            assert!(!sampler(0, 100).unwrap().takes(random));
            assert!(sampler(100, 100).unwrap().takes(random));
        }
        assert_eq!(sampler(1, 0), Err(FilterError::Fraction));
    }
}
