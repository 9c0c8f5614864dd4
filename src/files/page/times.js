'use strict';
// Shows the times of the list by the clock of who reads it; without scripts they are in UTC.
(() => {
  const two = number => String(number).padStart(2, '0');
  const show = () => {
    for (const time of document.querySelectorAll('time')) {
      const at = new Date(time.dateTime);
      if (isNaN(at)) continue;
      time.title = time.dateTime;
      time.textContent = at.getFullYear() + '-' + two(at.getMonth() + 1) + '-' + two(at.getDate()) +
        ' ' + two(at.getHours()) + ':' + two(at.getMinutes());
    }
  };
  for (const utc of document.querySelectorAll('.utc')) utc.remove();
  document.addEventListener('rows', show);
  show();
})();
