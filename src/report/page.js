// The value at the pointer. Stands in a page that is XML, too: no character of it may need escaping there.
document.querySelectorAll('.plot').forEach(function (plot) {
  var chart = JSON.parse(plot.dataset.hover), span = chart.hi - chart.lo, line = null, box = null;

  function leave() {
    if (line) {
      line.remove();
      box.remove();
      line = null;
    }
  }

  function add(name) {
    var element = document.createElement('div');
    element.className = name;
    plot.appendChild(element);
    return element;
  }

  function say(tag, text) {
    var element = document.createElement(tag);
    element.textContent = text;
    box.appendChild(element);
  }

  // The place in a line's points that is nearest to x.
  function nearest(points, x) {
    var best = 0;
    points.forEach(function (at, i) {
      if (Math.abs(points[best] - x) > Math.abs(at - x)) best = i;
    });
    return best;
  }

  function move(event) {
    var frame = plot.getBoundingClientRect(), part = (event.clientX - frame.left) / frame.width, near = null;
    if (0 > part || part > 1) {
      leave();
      return;
    }
    chart.lines.forEach(function (l) {
      var x = l.x[nearest(l.x, chart.lo + part * span)];
      if (x === undefined) return;
      if (near === null || Math.abs(near - chart.lo - part * span) > Math.abs(x - chart.lo - part * span)) near = x;
    });
    if (near === null) return;
    if (!line) {
      line = add('at');
      box = add('read');
    }
    part = (near - chart.lo) / span;
    line.style.left = 100 * part + '%';
    box.style.left = part > 0.5 ? '' : 'calc(' + 100 * part + '% + 10px)';
    box.style.right = part > 0.5 ? 'calc(' + 100 * (1 - part) + '% + 10px)' : '';
    box.textContent = '';
    say('b', chart.of + ' ' + +near.toPrecision(9));
    chart.lines.forEach(function (l) {
      var i = nearest(l.x, near);
      if (span / 200 >= Math.abs(l.x[i] - near)) say('div', l.name + ' ' + l.y[i]);
    });
  }

  plot.addEventListener('pointermove', move);
  plot.addEventListener('pointerleave', leave);
});
