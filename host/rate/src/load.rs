//! Overload control on the side that receives (RFC 7339 §5.3): how many requests clients are asked to keep back.

/// What clients are asked to keep back: more while there is too much, less afterwards, in small steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Percentage.
    loss: u8,
}

/// What is added while there is too much, and taken away while there is not, in percent.
const STEP: u8 = 5;

/// The most that clients are asked to keep back: with nothing coming in, nobody would notice that there is room again.
const MOST: u8 = 95;

impl Load {
    /// The percentage after a step of time. `is_overloaded`: in this step, there was more than the host could serve.
    pub fn step(&mut self, is_overloaded: bool) -> u8 {
        self.loss = match is_overloaded {
            true => (self.loss + STEP).min(MOST),
            false => self.loss.saturating_sub(STEP),
        };
        self.loss
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_share_follows_the_load_in_steps() {
        let mut load = Load::default();
        assert_eq!(load.step(false), 0);
        let rising: Vec<_> = (0..3).map(|_| load.step(true)).collect();
        assert_eq!(rising, [5, 10, 15]);
        assert_eq!(load.step(false), 10);
        let last = (0..100).map(|_| load.step(true)).last();
        assert_eq!(last, Some(95));
        let last = (0..100).map(|_| load.step(false)).last();
        assert_eq!(last, Some(0));
    }
}
