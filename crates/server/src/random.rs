//! Random octets of the operating system. The source of the TLS library is as good, and costs 30 ms
//! to begin with, which a start need not wait for.

use rustix::{
    io::retry_on_intr,
    rand::{GetRandomFlags, getrandom},
};

/// Fills `octets` with what nobody can guess.
pub(crate) fn fill(octets: &mut [u8]) {
    let mut done = 0;
    while done < octets.len() {
        let count = retry_on_intr(|| getrandom(&mut octets[done..], GetRandomFlags::empty()));
        done += count.expect("the system has random numbers");
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn all_octets_are_filled_and_none_comes_again() {
        let mut two = [[0; 1_000]; 2];
        two.iter_mut().for_each(|it| super::fill(it));
        assert_ne!(two[0], two[1]);
        assert!(two.iter().all(|it| it[990..] != [0; 10]));
    }
}
